'use strict';
'require view';
'require poll';
'require mldproxy.daemon as daemon';
'require mldproxy.doctor as doctor';
'require mldproxy.picture as picture';
'require mldproxy.tables as tables';
'require mldproxy.words as words';

/* What an instance of mldproxy knows and does, looked at anew every 5 s. */

const REFRESH = 5;
/* The names of hosts change seldom: they are asked for every so many refreshes. */
const NAMES_EVERY = 12;

function settingsLink(label) {
	return E('a', { 'href': L.url('admin/services/mldproxy/settings') }, [ label ]);
}

function waitingNode() {
	return E('p', { 'class': 'spinning' }, [ _('Asking mldproxy…') ]);
}

function message(kind, children) {
	return E('div', { 'class': `alert-message ${kind}` }, children);
}

/* Why there is nothing to show, and what to do. */
function troubleNode(error, instances) {
	switch (error.kind) {
	case 'missing':
		return message('danger', [
			E('h4', {}, [ _('rpcd does not know mldproxy') ]),
			E('p', {}, [
				_('Its plugin is not installed, or rpcd has not read it yet. On the router:')
			]),
			E('p', {}, [ E('code', {}, [ 'service rpcd reload' ]) ])
		]);
	case 'denied':
		return message('danger', [
			E('p', {}, [ _('You may not see the status of mldproxy.') ])
		]);
	}
	if (instances.length == 0)
		return message('notice', [
			E('h4', {}, [ _('mldproxy does not run') ]),
			E('p', {}, [
				_('No instance is enabled, its network is not up yet, or an option is wrong. ' +
				'The log says which:')
			]),
			E('p', {}, [ E('code', {}, [ 'logread -e mldproxy' ]) ]),
			E('p', {}, [ settingsLink(_('Go to the settings')) ])
		]);
	return message('warning', [
		E('h4', {}, [ _('mldproxy does not answer') ]),
		E('p', {}, [ _('This page asks again every %d seconds.').format(REFRESH) ]),
		E('p', {}, [ error.message ])
	]);
}

/* What is wrong with an instance that runs. */
function warningNodes(status) {
	const texts = [];
	if (status.upstream?.memberships_failing)
		texts.push(_('The kernel refuses to join or leave groups. The log says why.'));
	if (status.upstream?.kernel_tables_failing)
		texts.push(_('The kernel refuses proxy entries or routes. The log says why.'));
	if (status.multicast) {
		const trouble = words.tableTrouble(status.multicast.table);
		if (trouble)
			texts.push(trouble);
		if (status.multicast.ssm_impossible)
			texts.push(_('MLDv1 is in force upstream: no host can choose the source of a stream.'));
		for (const link of status.multicast.downstreams ?? [])
			if (status.multicast.table == 'owned' && !link.forwarding && link.role != 'down')
				texts.push(_('Streams are not forwarded to %s.').format(link.interface));
	}
	return texts.map((text) => message('warning', [ E('p', {}, [ text ]) ]));
}

function factsNode(status) {
	const { upstream } = status;
	const functions = [
		_('joins groups'),
		status.ndp_proxy ? _('NDP proxy') : null,
		status.host_routes ? _('host routes') : null,
		status.announce ? _('announcements') : null,
		status.multicast ? _('MLD proxy') : null
	].filter((word) => word != null);
	const facts = [
		[ _('Upstream'), `${upstream?.interface}: ${words.linkState(upstream?.state)}` ],
		[ _('MLD in force'), words.mldVersion(upstream?.mld_version) ],
		[ _('Last report of all groups'), (upstream?.last_report_s == null)
			? _('none yet') : _('%s ago').format(words.time(upstream.last_report_s)) ],
		[ _('Functions'), functions.join(', ') ],
		[ _('Running for'), words.time(status.uptime_s) ],
		[ _('Version'), status.version ]
	];
	return E('dl', { 'class': 'mldproxy-facts' }, facts.map(([ name, value ]) =>
		E('div', {}, [ E('dt', {}, [ name ]), E('dd', {}, [ value ]) ])));
}

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	render() {
		this.instances = [];
		this.selected = null;
		this.data = null;
		this.names = {};
		this.refreshes = 0;
		this.asked = 0;
		this.pending = null;

		this.tabs = E('ul', { 'class': 'cbi-tabmenu' });
		this.trouble = E('div', {}, [ waitingNode() ]);
		this.facts = E('div');
		this.canvas = E('div', { 'class': 'mldproxy-canvas' });
		this.legend = E('div');
		this.tables = tables.create();
		this.doctor = doctor.create(() => this.selected,
			() => this.data?.status.upstream?.interface ?? null);
		this.known = E('div', { 'style': 'display:none' }, [
			this.facts, this.canvas, this.legend
		]);
		this.tables.node.style.display = 'none';

		/* LuCI may poll at once, or only after a while. */
		this.refresh();
		poll.add(() => this.pending ?? this.refresh(), REFRESH);
		window.addEventListener('resize', () => this.drawPicture());

		return E('div', { 'class': 'mldproxy cbi-map' }, [
			E('link', { 'rel': 'stylesheet', 'href': L.resource('mldproxy/style.css') }),
			E('h2', {}, [ _('MLD/NDP proxy') ]),
			this.tabs, this.trouble, this.known, this.doctor.node, this.tables.node
		]);
	},

	/* An answer that another question has overtaken is dropped. */
	refresh() {
		const number = ++this.asked;
		const wantsNames = this.refreshes++ % NAMES_EVERY == 0;
		this.pending = Promise.all([
			daemon.instances(),
			wantsNames ? daemon.hostNames() : null
		]).then(([ instances, names ]) => {
			this.instances = instances;
			this.names = names ?? this.names;
			if (!instances.some((instance) => instance.name == this.selected))
				this.selected = instances[0]?.name ?? null;
			return daemon.look(this.selected);
		}).then(
			(data) => (number == this.asked) ? this.show(data, null) : null,
			(error) => (number == this.asked) ? this.show(null, error) : null
		).finally(() => {
			if (number == this.asked)
				this.pending = null;
		});
		return this.pending;
	},

	show(data, error) {
		this.data = data;
		this.drawTabs();
		L.dom.content(this.trouble, (data == null)
			? [ troubleNode(error, this.instances) ]
			: warningNodes(data.status));
		this.known.style.display = (data == null) ? 'none' : '';
		this.tables.node.style.display = (data == null) ? 'none' : '';
		if (data == null)
			return;
		L.dom.content(this.facts, [ factsNode(data.status) ]);
		this.drawPicture();
		this.tables.update(data, this.names);
	},

	drawPicture() {
		if (this.data == null)
			return;
		const hosts = daemon.hosts(this.data.neighbors, this.names);
		const width = this.canvas.clientWidth;
		if (width > 0)
			L.dom.content(this.canvas, [ picture.draw(this.data, hosts, width) ]);
		L.dom.content(this.legend, [
			picture.legend(hosts, (state) =>
				this.tables.search('neighbors', words.neighborState(state)))
		]);
	},

	/* One instance needs no tabs. */
	drawTabs() {
		this.tabs.style.display = (this.instances.length > 1) ? '' : 'none';
		L.dom.content(this.tabs, this.instances.map((instance) => E('li', {
			'class': (instance.name == this.selected) ? 'cbi-tab' : 'cbi-tab-disabled'
		}, [
			E('a', {
				'href': '#',
				'data-instance': instance.name,
				'click': (event) => {
					event.preventDefault();
					this.selected = instance.name;
					this.known.style.display = 'none';
					this.tables.node.style.display = 'none';
					L.dom.content(this.trouble, [ waitingNode() ]);
					this.drawTabs();
					return this.refresh();
				}
			}, [ instance.name ])
		])));
	}
});
