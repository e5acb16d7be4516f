'use strict';
'require baseclass';
'require mldproxy.picture as picture';
'require mldproxy.words as words';

/* The tables below the picture, of which one is shown, by pages, with a box to search in it. */

const ROWS_OF_A_PAGE = 50;

function addressOrGroup(neighbor) {
	return neighbor.address ?? _('%s (group)').format(neighbor.group);
}

function neighborRows(data, names) {
	const downstream = data.neighbors.map((one) => [
		addressOrGroup(one),
		names[one.mac] ?? '',
		one.mac,
		one.interface,
		{ state: one.state, text: words.neighborState(one.state) },
		words.time(one.age_s),
		words.time(one.expires_s)
	]);
	const upstream = data.upstreamNeighbors.map((one) => [
		one.address,
		names[one.mac] ?? '',
		one.mac,
		data.status.upstream.interface,
		_('upstream'),
		words.time(one.age_s),
		words.time(null)
	]);
	return downstream.concat(upstream);
}

function groupRows(data) {
	return data.groups.map((one) => [
		one.group,
		one.members,
		one.joined ? _('joined') : _('not joined'),
		words.shortAddress(one.address)
	]);
}

function streamRows(data) {
	return data.streams.map((one) => [
		one.source ?? _('any source'),
		one.group,
		one.from ?? _('any'),
		one.to?.join(', ') || '–',
		one.packets,
		words.time((one.packets > 0) ? one.idle_s : null),
		words.membership(one.membership)
	]);
}

function querierRows(data) {
	const { status } = data;
	const querier = status.upstream?.querier;
	const upstream = [
		status.upstream?.interface,
		_('upstream'),
		querier?.address ?? _('none heard'),
		words.mldVersion(querier?.mld_version),
		(querier == null) ? '' : _('heard %s ago').format(words.time(querier.last_query_s))
	];
	const downstream = (status.multicast?.downstreams ?? []).map((one) => [
		one.interface,
		_('downstream'),
		(one.role == 'querier')
			? _('this router (%s)').format(one.querier ?? '')
			: one.querier ?? _('none heard'),
		words.mldVersion(one.mld_version),
		(one.next_query_s != null)
			? _('queries in %s').format(words.time(one.next_query_s))
			: (one.querier_expires_s != null)
				? _('gone in %s if silent').format(words.time(one.querier_expires_s))
				: ''
	]);
	return [ upstream ].concat(downstream);
}

function counterRows(data) {
	const counters = data.status.counters ?? {};
	return Object.keys(counters).filter((name) => counters[name] > 0)
		.map((name) => [ name, counters[name] ]);
}

function tables() {
	return [
		{
			id: 'neighbors',
			title: _('Neighbors'),
			columns: [
				_('Address'), _('Host'), _('MAC address'), _('Interface'), _('State'), _('Seen'),
				_('Expires in')
			],
			rows: neighborRows,
			count: (data) => data.status.neighbors?.count,
			limited: (data) => data.neighbors.length,
			empty: _('No host has been heard yet. Connect one anew, or ping the router from it.')
		},
		{
			id: 'groups',
			title: _('Groups'),
			columns: [ _('Group'), _('Members'), _('State'), _('Last address') ],
			rows: groupRows,
			count: (data) => data.status.groups?.count,
			limited: (data) => data.groups.length,
			empty: _('No solicited-node group is wanted yet.')
		},
		{
			id: 'streams',
			title: _('Streams'),
			columns: [
				_('Source'), _('Group'), _('From'), _('To'), _('Packets'), _('Last packet'),
				_('Upstream')
			],
			rows: streamRows,
			count: (data) => data.status.multicast?.streams?.count ?? 0,
			limited: (data) => data.streams.length,
			empty: (data) => data.status.multicast
				? _('No host downstream listens to a stream.')
				: _('This instance is no MLD proxy. The settings can make it one.')
		},
		{
			id: 'queriers',
			title: _('Queriers'),
			columns: [ _('Interface'), _('Side'), _('Querier'), _('Version'), _('Queries') ],
			rows: querierRows,
			empty: ''
		},
		{
			id: 'counters',
			title: _('Counters'),
			columns: [ _('Counter'), _('Since the start') ],
			rows: counterRows,
			empty: _('Nothing has been counted yet.')
		}
	];
}

function textOf(cell) {
	return String(cell?.text ?? cell ?? '');
}

function cellNode(cell, title) {
	const content = (cell?.state != null)
		? E('span', { 'class': `mldproxy-badge mldproxy-${picture.stateClass(cell.state)}` }, [
			E('span', { 'class': 'mldproxy-swatch' }), textOf(cell)
		])
		: textOf(cell);
	return E('td', { 'class': 'td left', 'data-title': title }, [ content ]);
}

const Tables = baseclass.extend({
	__init__() {
		this.tables = tables();
		this.current = this.tables[0];
		this.page = 0;
		this.data = null;
		this.names = {};
		this.tabs = E('ul', { 'class': 'cbi-tabmenu' });
		this.field = E('input', {
			'type': 'search',
			'class': 'cbi-input-text',
			'placeholder': _('Search'),
			'aria-label': _('Search'),
			'input': () => this.turnTo(0)
		});
		this.found = E('span', { 'class': 'mldproxy-found' });
		this.body = E('div');
		this.node = E('div', { 'class': 'mldproxy-tables' }, [
			this.tabs,
			E('div', { 'class': 'mldproxy-tools' }, [ this.field, this.found ]),
			this.body
		]);
	},

	/** Shows what `daemon.look` found. Keeps the table, the page and the search. */
	update(data, names) {
		this.data = data;
		this.names = names;
		this.draw();
	},

	/** Shows the rows of a table that contain a text. */
	search(id, wanted) {
		this.field.value = wanted;
		this.select(this.tables.find((table) => table.id == id));
	},

	select(table) {
		this.current = table;
		this.turnTo(0);
	},

	turnTo(page) {
		this.page = page;
		this.draw();
	},

	draw() {
		if (this.data == null)
			return;
		this.drawTabs();
		const table = this.current;
		const wanted = this.field.value.trim().toLowerCase();
		const all = table.rows(this.data, this.names);
		const rows = all.filter((row) => row.map(textOf).join(' ').toLowerCase().includes(wanted));
		const pages = Math.max(1, Math.ceil(rows.length / ROWS_OF_A_PAGE));
		this.page = Math.min(this.page, pages - 1);
		const start = this.page * ROWS_OF_A_PAGE;
		const shown = rows.slice(start, start + ROWS_OF_A_PAGE);
		this.drawFound(table, wanted, rows.length);
		const empty = (typeof(table.empty) == 'function') ? table.empty(this.data) : table.empty;
		const nodes = [ (shown.length > 0)
			? this.tableNode(table, shown)
			: E('p', { 'class': 'mldproxy-empty' }, [
				(all.length > 0) ? _('Nothing matches the search.') : empty
			]) ];
		if (pages > 1)
			nodes.push(this.pagerNode(start, shown.length, rows.length, pages));
		L.dom.content(this.body, nodes);
	},

	drawTabs() {
		L.dom.content(this.tabs, this.tables.map((table) => {
			const count = table.count?.(this.data);
			const label = (count > 0) ? `${table.title} (${count})` : table.title;
			return E('li', {
				'class': (table == this.current) ? 'cbi-tab' : 'cbi-tab-disabled'
			}, [
				E('a', {
					'href': '#',
					'data-table': table.id,
					'click': (event) => {
						event.preventDefault();
						this.field.value = '';
						this.select(table);
					}
				}, [ label ])
			]);
		}));
	},

	/* The answers of rpcd have a limit, so a long list is cut short. */
	drawFound(table, wanted, found) {
		const count = table.count?.(this.data) ?? 0;
		const limited = table.limited?.(this.data) ?? count;
		const parts = [];
		if (wanted != '')
			parts.push(_('%d found').format(found));
		if (limited < count)
			parts.push(_('These are the first %d of %d. On the router, mldproxy status has all.')
				.format(limited, count));
		L.dom.content(this.found, [ parts.join(' · ') ]);
	},

	tableNode(table, rows) {
		return E('table', { 'class': 'table' }, [
			E('tr', { 'class': 'tr table-titles' },
				table.columns.map((title) => E('th', { 'class': 'th left' }, [ title ])))
		].concat(rows.map((row) => E('tr', { 'class': 'tr' },
			row.map((cell, column) => cellNode(cell, table.columns[column]))))));
	},

	pagerNode(start, length, count, pages) {
		const button = (label, title, page) => E('button', {
			'type': 'button',
			'class': 'btn cbi-button',
			'title': title,
			'disabled': (page < 0 || page >= pages) ? '' : null,
			'click': () => this.turnTo(page)
		}, [ label ]);
		return E('div', { 'class': 'mldproxy-pager' }, [
			button('«', _('Previous page'), this.page - 1),
			E('span', {}, [ _('%d to %d of %d').format(start + 1, start + length, count) ]),
			button('»', _('Next page'), this.page + 1)
		]);
	}
});

return baseclass.extend({
	/** The tables, without anything in them yet: `node`, `update`, `search`. */
	create: () => new Tables()
});
