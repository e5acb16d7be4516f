'use strict';
'require baseclass';
'require mldproxy.daemon as daemon';
'require mldproxy.words as words';

/*
 * Draws the gateway, the switch, the router and the hosts, in pixels of the width that there is:
 * from left to right, or from top to bottom where that is narrow. A wide picture with three hosts:
 *
 *   [gateway]──[switch]──wan──[router]──┬─ br-lan
 *    querier         groups             ├── [host]  [host]
 *                                       └── [host]
 */

const NAMESPACE = 'http://www.w3.org/2000/svg';
const NARROW = 620;
/* The most hosts of a picture, and the most groups on its line. */
const HOSTS = { wide: 24, narrow: 10 };
const GROUPS = { wide: 6, narrow: 4 };
const BOX = { width: 120, height: 46 };
const HOST = { width: 190, height: 42, gap: 10 };
/* What a letter takes of the size of a text, on average, and what one of East Asia takes. */
const LETTER = .55;
const WIDE_LETTER = 1;

function element(tag, attributes, children) {
	const node = document.createElementNS(NAMESPACE, tag);
	for (const name in attributes)
		node.setAttribute(name, attributes[name]);
	for (const child of children ?? [])
		if (child != null)
			node.appendChild((child instanceof Node) ? child : document.createTextNode(child));
	return node;
}

function letterWidth(letter) {
	return (letter.codePointAt(0) >= 0x1100) ? WIDE_LETTER : LETTER;
}

/* Cuts a text to a width, in sizes of the text. */
function cut(whole, most) {
	let width = 0;
	let shown = '';
	for (const letter of whole) {
		width += letterWidth(letter);
		if (width > most)
			return shown.slice(0, -1) + '…';
		shown += letter;
	}
	return whole;
}

/* A text that is cut to a width. The whole of it appears where the pointer rests. */
function text(x, y, content, options) {
	const size = options?.size ?? 12;
	const whole = String(content);
	const shown = cut(whole, (options?.width ?? Infinity) / size);
	return element('text', {
		'x': x,
		'y': y,
		'font-size': size,
		'text-anchor': options?.anchor ?? 'start',
		'class': options?.class ?? ''
	}, [ (shown != whole) ? element('title', {}, [ whole ]) : null, shown ]);
}

function line(x1, y1, x2, y2, trouble) {
	return element('path', {
		'd': `M${x1} ${y1}L${x2} ${y2}`,
		'class': trouble ? 'mldproxy-line mldproxy-broken' : 'mldproxy-line'
	});
}

function box(x, y, title, subtitle, extra) {
	return element('g', { 'class': 'mldproxy-node' + (extra ? ' ' + extra : '') }, [
		element('rect', { 'x': x, 'y': y, 'width': BOX.width, 'height': BOX.height, 'rx': 4 }),
		text(x + BOX.width / 2, y + (subtitle ? 19 : 28), title, {
			anchor: 'middle', size: 13, width: BOX.width - 8, class: 'mldproxy-strong'
		}),
		subtitle ? text(x + BOX.width / 2, y + 36, subtitle, {
			anchor: 'middle', width: BOX.width - 8, class: 'mldproxy-faint'
		}) : null
	]);
}

function hostBox(x, y, width, host) {
	const [ first ] = host.addresses;
	const label = host.name ?? (first ? words.shortAddress(first) : host.mac);
	const count = host.addresses.length;
	const state = words.neighborState(host.state);
	const second = (count > 1) ? _('%s, %d addresses').format(state, count) : state;
	const whole = [ host.name, host.mac ].concat(host.addresses).filter((part) => part != null);
	return element('g', { 'class': `mldproxy-host mldproxy-${stateClass(host.state)}` }, [
		element('title', {}, [ whole.join('\n') ]),
		element('rect', { 'x': x, 'y': y, 'width': width, 'height': HOST.height, 'rx': 4 }),
		element('rect', {
			'x': x, 'y': y, 'width': 7, 'height': HOST.height, 'rx': 3, 'class': 'mldproxy-colour'
		}),
		text(x + 15, y + 17, label, { width: width - 22, class: 'mldproxy-strong' }),
		text(x + 15, y + 33, second, { width: width - 22, class: 'mldproxy-faint' })
	]);
}

/* States become names of classes, so an unknown one does not. */
function stateClass(state) {
	return daemon.STATES.includes(state) ? state : 'unknown';
}

/* The lines on the link upstream: how many groups are joined, and which. */
function groupLines(data, most) {
	const joined = data.groups.filter((group) => group.joined);
	const count = data.status.groups?.count ?? 0;
	/* The list may be cut short; then what is behind its end counts as joined. */
	const waiting = data.groups.length - joined.length;
	const lines = [ (waiting > 0)
		? _('%d of %d groups joined').format(count - waiting, count)
		: _('Groups joined: %d').format(count) ];
	const named = (count > most) ? joined.slice(0, most - 1) : joined.slice(0, most);
	for (const group of named)
		lines.push(group.group);
	if (named.length > 0 && joined.length > named.length)
		lines.push(_('and %d more').format(count - waiting - named.length));
	const streams = data.status.multicast?.joined ?? 0;
	if (streams > 0)
		lines.push(_('Groups joined for streams: %d').format(streams));
	return lines;
}

function querierLines(querier) {
	if (querier == null)
		return [ _('No querier heard') ];
	return [
		_('Querier (%s)').format(words.mldVersion(querier.mld_version)),
		words.shortAddress(querier.address),
		_('heard %s ago').format(words.time(querier.last_query_s))
	];
}

function downstreamTitle(data, downstream) {
	const parts = [ downstream.interface ];
	if (downstream.state != 'usable')
		parts.push(words.linkState(downstream.state));
	const links = data.status.multicast?.downstreams ?? [];
	const link = links.find((one) => one.interface == downstream.interface);
	if (link?.role == 'querier')
		parts.push(_('this router is the querier'));
	else if (link?.querier)
		parts.push(_('querier %s').format(words.shortAddress(link.querier)));
	const streams = data.streams.filter((stream) => stream.to?.includes(downstream.interface));
	if (streams.length > 0)
		parts.push(_('streams: %d').format(streams.length));
	return parts.join(' · ');
}

function subtitleOfRouter(status) {
	if (status.ndp_proxy && status.multicast)
		return _('NDP and MLD proxy');
	if (status.ndp_proxy)
		return _('NDP proxy');
	return status.multicast ? _('MLD proxy') : _('joins groups');
}

/* The downstreams with their hosts, at most so many. */
function sections(data, hosts, most) {
	let left = most;
	return (data.status.downstreams ?? []).map(function(downstream) {
		const own = hosts.filter((host) => host.interface == downstream.interface);
		const shown = own.slice(0, left);
		left -= shown.length;
		return { downstream: downstream, shown: shown, hidden: own.length - shown.length };
	});
}

/* Draws the downstreams to the right of x, with a trunk from the router. Returns the height. */
function drawDownstreams(nodes, data, hosts, place, most) {
	const { x, top, width } = place;
	const columns = Math.max(1, Math.floor((width - 24 + HOST.gap) / (HOST.width + HOST.gap)));
	const each = Math.floor((width - 24 + HOST.gap) / columns) - HOST.gap;
	let y = top;
	let end = place.from;
	for (const { downstream, shown, hidden } of sections(data, hosts, most)) {
		const trouble = downstream.state != 'usable';
		end = y + 9;
		nodes.push(line(x, end, x + 18, end, trouble));
		nodes.push(text(x + 24, y + 13, downstreamTitle(data, downstream), {
			width: width - 24, class: trouble ? 'mldproxy-trouble' : 'mldproxy-strong'
		}));
		y += 24;
		shown.forEach(function(host, number) {
			const column = number % columns;
			nodes.push(hostBox(x + 24 + column * (each + HOST.gap), y, each, host));
			if (column == columns - 1 || number == shown.length - 1)
				y += HOST.height + HOST.gap;
		});
		if (shown.length == 0 && hidden == 0) {
			nodes.push(text(x + 24, y + 12, _('No host heard yet'), { class: 'mldproxy-faint' }));
			y += 24;
		}
		if (hidden > 0) {
			nodes.push(text(x + 24, y + 12, _('and %d more hosts: see the table').format(hidden), {
				width: width - 24, class: 'mldproxy-faint'
			}));
			y += 24;
		}
		y += 6;
	}
	nodes.push(line(x, place.from, x, end));
	return y;
}

function drawWide(nodes, data, hosts, width) {
	const { status } = data;
	const trouble = status.upstream?.state != 'usable';
	const middle = 12 + BOX.height / 2;
	const room = Math.min(190, Math.max(128, Math.floor((width - 3 * BOX.width) / 4)));
	const x = [ 2, 2 + BOX.width + 36, 2 + BOX.width + 36 + BOX.width + room ];
	const trunk = x[2] + BOX.width + 24;
	nodes.push(line(x[0], middle, x[2], middle, trouble), line(x[2], middle, trunk, middle));
	nodes.push(box(x[0], 12, _('Gateway'), ''), box(x[1], 12, _('Switch'), ''));
	nodes.push(box(x[2], 12, _('Router'), subtitleOfRouter(status), 'mldproxy-self'));
	const start = x[1] + BOX.width + 10;
	querierLines(status.upstream?.querier).forEach(function(content, number) {
		nodes.push(text(x[0], 78 + 17 * number, content, {
			width: start - x[0] - 10, class: (number == 0) ? '' : 'mldproxy-faint'
		}));
	});
	nodes.push(text(start, middle - 7, upstreamTitle(status), {
		width: room - 14, class: trouble ? 'mldproxy-trouble' : 'mldproxy-strong'
	}));
	const lines = groupLines(data, GROUPS.wide);
	lines.forEach(function(content, number) {
		nodes.push(text(start, middle + 19 + 17 * number, content, {
			width: (number == 0) ? room - 14 : room + BOX.width - 14,
			class: (number == 0) ? '' : 'mldproxy-faint'
		}));
	});
	/* The first downstream is in line with the router. */
	const place = { x: trunk, top: middle - 9, width: width - trunk - 2, from: middle };
	const bottom = drawDownstreams(nodes, data, hosts, place, HOSTS.wide);
	return Math.max(bottom, middle + 26 + 17 * lines.length, 124);
}

function upstreamTitle(status) {
	const { upstream } = status;
	return (upstream?.state == 'usable')
		? upstream.interface
		: `${upstream?.interface} · ${words.linkState(upstream?.state)}`;
}

function drawNarrow(nodes, data, hosts, width) {
	const { status } = data;
	const trouble = status.upstream?.state != 'usable';
	const trunk = 20;
	const beside = BOX.width + 14;
	const lines = groupLines(data, GROUPS.narrow);
	const y = [ 4, 4 + BOX.height + 22, 0 ];
	y[2] = y[1] + BOX.height + 30 + 17 * lines.length;
	nodes.push(line(trunk, y[0], trunk, y[2], trouble));
	nodes.push(box(2, y[0], _('Gateway'), ''), box(2, y[1], _('Switch'), ''));
	nodes.push(box(2, y[2], _('Router'), subtitleOfRouter(status), 'mldproxy-self'));
	querierLines(status.upstream?.querier).forEach(function(content, number) {
		nodes.push(text(beside, y[0] + 13 + 17 * number, content, {
			width: width - beside, class: (number == 0) ? '' : 'mldproxy-faint'
		}));
	});
	let top = y[1] + BOX.height + 18;
	nodes.push(text(trunk + 12, top, upstreamTitle(status), {
		width: width - trunk - 12, class: trouble ? 'mldproxy-trouble' : 'mldproxy-strong'
	}));
	for (const content of lines) {
		top += 17;
		nodes.push(text(trunk + 12, top, content, {
			width: width - trunk - 12, class: (content == lines[0]) ? '' : 'mldproxy-faint'
		}));
	}
	const place = {
		x: trunk, top: y[2] + BOX.height + 14, width: width - trunk - 2, from: y[2] + BOX.height
	};
	return drawDownstreams(nodes, data, hosts, place, HOSTS.narrow);
}

return baseclass.extend({
	/** The picture, `width` pixels wide, of what `daemon.look` found. */
	draw(data, hosts, width) {
		const nodes = [];
		const draw = (width < NARROW) ? drawNarrow : drawWide;
		const height = Math.ceil(draw(nodes, data, hosts, width));
		return element('svg', {
			'width': width,
			'height': height,
			'viewBox': `0 0 ${width} ${height}`,
			'role': 'img',
			'aria-label': _('The gateway, the switch, the router and its hosts'),
			'class': 'mldproxy-picture'
		}, nodes);
	},

	/** The number of hosts in each state, with its colour. `onSelect` is called with a state. */
	legend(hosts, onSelect) {
		return E('div', { 'class': 'mldproxy-legend' }, daemon.STATES.map(function(state) {
			const count = hosts.filter((host) => host.state == state).length;
			return E('button', {
				'type': 'button',
				'class': `mldproxy-${state}`,
				'title': words.neighborMeaning(state),
				'click': () => onSelect(state)
			}, [
				E('span', { 'class': 'mldproxy-swatch' }),
				`${words.neighborState(state)}: ${count}`
			]);
		}));
	},

	stateClass: stateClass
});
