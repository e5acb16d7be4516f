'use strict';
'require view';
'require form';
'require rpc';
'require uci';

/*
 * The options of /etc/config/mldproxy. An empty field is the program's default, which stands in it
 * in grey: nothing of it is written to the file.
 */

const callNetworks = rpc.declare({
	object: 'network.interface',
	method: 'dump',
	expect: { interface: [] }
});

/* The networks that a user may name, with their devices. */
function loadNetworks() {
	return callNetworks().then(function(networks) {
		return networks.filter((network) => network.interface != 'loopback').map((network) => ({
			name: network.interface,
			device: network.l3_device ?? network.device ?? ''
		}));
	}, function() {
		return [];
	});
}

/* A network or a device, as the service takes it. */
function checkName(value) {
	return value == '' || (/^[A-Za-z0-9_.-]+$/.test(value) && !value.startsWith('-'))
		|| _('the name of a network or a device');
}

function checkPrefix(value) {
	return value == '' || value == 'upstream' || /^[0-9a-fA-F:.]+\/[0-9]+$/.test(value)
		|| _('a prefix such as 2001:db8::/64, or upstream');
}

/* The options of a tab are added by one of these, since most have the same form. */
class Tab {
	constructor(section, name) {
		this.section = section;
		this.name = name;
	}

	option(widget, name, title, help) {
		const option = this.section.taboption(this.name, widget, name, title, help);
		option.rmempty = true;
		return option;
	}

	/* A field that shows the default while it is empty. */
	value(name, placeholder, datatype, title, help) {
		const option = this.option(form.Value, name, title, help);
		option.placeholder = placeholder;
		option.datatype = datatype;
		return option;
	}

	flag(name, isOn, title, help) {
		const option = this.option(form.Flag, name, title, help);
		option.default = isOn ? option.enabled : option.disabled;
		return option;
	}

	/* A choice of these values, each with a label unless it is one itself. */
	choice(name, standard, values, title, help) {
		const option = this.option(form.ListValue, name, title, help);
		for (const [ value, label ] of values)
			option.value(value, label);
		option.default = standard;
		return option;
	}

	list(name, placeholder, title, help) {
		const option = this.option(form.DynamicList, name, title, help);
		option.placeholder = placeholder;
		return option;
	}
}

function addGeneral(section, networks) {
	section.tab('general', _('General'));
	const tab = new Tab(section, 'general');
	tab.flag('enabled', false, _('Enabled'), _('Starts this instance.'));

	const upstream = tab.value('upstream', '', 'string', _('Upstream'),
		_('The network towards the provider’s gateway: the one that has IPv6, wan6 in OpenWrt’s ' +
		'default. While it is down, the service waits for it. A name that is no network is ' +
		'taken for that of a device.'));
	upstream.validate = function(section_id, value) {
		if (value == '' && this.section.formvalue(section_id, 'enabled') == '1')
			return _('the network towards the gateway, since the instance is enabled');
		return checkName(value);
	};
	const downstream = tab.list('downstream', 'lan', _('Downstreams'),
		_('The networks or devices towards your hosts.'));
	downstream.validate = (section_id, value) => checkName(value);
	for (const network of networks) {
		const label = network.device ? `${network.name} (${network.device})` : network.name;
		upstream.value(network.name, label);
		downstream.value(network.name, label);
	}
}

function addHosts(section) {
	section.tab('hosts', _('Hosts'));
	const tab = new Tab(section, 'hosts');
	const prefix = tab.list('prefix', '2000::/3', _('Prefixes'),
		_('Learn only addresses in this prefix; up to 16 of them. “upstream” alone follows the ' +
		'prefixes of the upstream’s own addresses as they change.'));
	prefix.validate = (section_id, value) => checkPrefix(value);
	const exclude = tab.list('exclude', '', _('Excluded prefixes'),
		_('Never learn addresses in this prefix; up to 16 of them.'));
	exclude.datatype = 'cidr6';
	tab.choice('learn', 'both', [
		[ 'both', _('NDP and MLD') ],
		[ 'ndp', _('NDP') ],
		[ 'mld', _('MLD') ]
	], _('Learn from'),
	_('The messages to learn hosts from: Neighbor Discovery, their MLD reports, or both.'));
	tab.flag('ask', true, _('Ask hosts'),
		_('Sends MLD queries to hosts, to learn whether they are still there.'));
	tab.flag('probe', true, _('Probe addresses'),
		_('Probes addresses with Neighbor Solicitations if a host does not answer such a query.'));
	tab.value('address_timeout', '300', 'uinteger', _('Address timeout'),
		_('Seconds from the last sighting of an address to its expiry.'));
	tab.value('expiry_interval', '30', 'uinteger', _('Expiry interval'),
		_('Seconds between two checks for expired addresses.'));
	tab.value('per_mac', '64', 'uinteger', _('Addresses per host'),
		_('The most addresses that one host may hold.'));
}

function addNdpProxy(section) {
	section.tab('ndp', _('NDP proxy'));
	const tab = new Tab(section, 'ndp');
	tab.flag('ndp_proxy', false, _('NDP proxy'),
		_('Makes the kernel answer the gateway for each confirmed host, so that you need no ' +
		'other NDP proxy: set the ndp of these networks in /etc/config/dhcp to disabled, and ' +
		'stop ndppd.'));
	tab.flag('host_routes', false, _('Host routes'),
		_('Adds a route to each confirmed host, for networks that have the same /64 on both ' +
		'sides. Set a prefix too: without one, a host can claim any address and get the packets ' +
		'to it.'));
	tab.flag('announce', false, _('Announce hosts'),
		_('Advertises a host to the gateway when the host is first confirmed, before the ' +
		'gateway solicits it.'));
}

function addMulticast(section) {
	section.tab('multicast', _('Multicast'));
	const tab = new Tab(section, 'multicast');
	tab.flag('mld_proxy', false, _('MLD proxy'),
		_('Makes the router an MLD proxy (RFC 4605): it forwards multicast streams to the hosts ' +
		'that listen to them, and joins their groups upstream. The service adds the firewall ' +
		'rules for it, and the router becomes the MLD querier of the downstreams. One instance ' +
		'alone can use the main routing table of the kernel.'));
	const options = [
		tab.flag('fast_leave', false, _('Fast leave'),
			_('Ends a stream at once when a host leaves its group, without asking whether ' +
			'others on the network still listen. For networks where each group has one ' +
			'listener.')),
		tab.flag('senders', false, _('Senders at home'),
			_('Also forwards upstream what hosts send to multicast groups. The firewall then ' +
			'lets it through from the scope below on.')),
		scopeOption(tab),
		tab.choice('querier', 'auto', [
			[ 'auto', _('auto (MLDv2)') ],
			[ 'v1', _('MLDv1') ],
			[ 'off', _('off') ]
		], _('Querier'), _('Whether to be the querier of the downstreams.')),
		tab.choice('forward', 'auto', [
			[ 'auto', _('only as the querier') ],
			[ 'always', _('always') ]
		], _('Forward'),
		_('RFC 4605 forwards streams on a downstream only while this router is its querier. ' +
		'“Always” forwards them beside another querier too.')),
		groupList(tab, 'allow', _('Allowed groups'),
			_('Proxy only groups in this prefix; up to 16 of them.')),
		groupList(tab, 'deny', _('Denied groups'),
			_('Never proxy groups in this prefix; up to 16 of them.')),
		tab.value('max_groups', '400', 'range(1,4096)', _('Groups'),
			_('The most groups of one downstream, and the most groups joined upstream; up to ' +
			'4096. A bridge of OpenWrt that snoops holds 512, some switches hold no more.')),
		tab.value('max_sources', '64', 'range(1,64)', _('Sources of a group'),
			_('The most sources of one group on one downstream, up to 64.')),
		tab.value('query_interval', '125', 'range(1,31744)', _('Query interval'),
			_('Seconds between two general queries, 1 to 31744.')),
		tab.value('robustness', '2', 'range(1,7)', _('Robustness'),
			_('How often messages that may get lost are sent, 1 to 7.')),
		tab.value('last_listener_interval', '1', 'range(0.001,25)', _('Last listener interval'),
			_('Seconds between two queries for further listeners when a host leaves a group, ' +
			'0.001 to 25. A stream that nobody listens to ends after robustness times this ' +
			'interval.')),
		tab.value('table', 'main', 'range(1,99999999)', _('Routing table'),
			_('A multicast routing table of the kernel for this instance alone, 1 to 99999999. ' +
			'Only one program can own a table: set this beside omcproxy, smcroute, OpenThread’s ' +
			'border router or another instance with the MLD proxy.'))
	];
	/* What is hidden stays in the file, for when the MLD proxy is switched on again. */
	for (const option of options) {
		option.depends('mld_proxy', '1');
		option.retain = true;
	}
}

function scopeOption(tab) {
	const option = tab.value('scope', 'organization',
		'or("admin","site","organization","global",range(3,14))', _('Scope'),
		_('The lowest scope of groups that are joined upstream, and that leave the home: a name ' +
		'or a number from 3 to 14. Groups of a lower scope, such as those of Matter and Thread ' +
		'(ff05::), are forwarded between the downstreams alone.'));
	for (const name of [ 'admin', 'site', 'organization', 'global' ])
		option.value(name);
	return option;
}

function groupList(tab, name, title, help) {
	const option = tab.list(name, '', title, help);
	option.datatype = 'cidr6';
	return option;
}

function addAdvanced(section) {
	section.tab('advanced', _('Advanced'));
	const tab = new Tab(section, 'advanced');
	tab.choice('mld_version', 'auto', [
		[ 'auto', _('as the gateway queries') ],
		[ '1', _('MLDv1') ],
		[ '2', _('MLDv2') ]
	], _('MLD version'), _('The MLD version of reports.'));
	tab.value('refresh_interval', '60', 'uinteger', _('Refresh interval'),
		_('Seconds between two unsolicited reports of all groups; 0 sends none.'));
	tab.value('join_rate', '50', 'uinteger', _('Joins a second'),
		_('The most new groups to join in a second. Further groups wait for their turn.'));
	tab.value('join_burst', '200', 'uinteger', _('Joins at once'),
		_('The most new groups to join at once.'));
	tab.choice('log_level', 'info', [
		[ 'error' ], [ 'warn' ], [ 'info' ], [ 'debug' ], [ 'trace' ]
	], _('Log level'),
	_('Each level adds to the one before: info has joins and leaves, debug has addresses, ' +
		'queries, probes and reports, trace has dropped packets.'));
	tab.value('user', 'nobody', 'string', _('User'),
		_('The user of the daemon, by name or number. By default nobody if the router has ' +
		'ujail, else root. Set one user for all instances, since it owns the folder of their ' +
		'control sockets.'));
}

/* `uci set mldproxy.upstream=wan` makes a section of type wan, which no form shows. */
function shortForms() {
	return uci.sections('mldproxy').filter((section) => section['.type'] != 'mldproxy');
}

/* The commands that turn short forms into options of the section main, whose own options win. */
function commandsFor(sections) {
	const commands = [];
	for (const section of sections) {
		const name = section['.name'];
		const isKnown = [ 'enabled', 'upstream', 'downstream' ].includes(name);
		commands.push(`uci delete mldproxy.${name}`);
		if (isKnown && uci.get('mldproxy', 'main') && uci.get('mldproxy', 'main', name) == null)
			commands.push(`uci set mldproxy.main.${name}='${section['.type']}'`);
	}
	return commands.concat('uci commit mldproxy', 'service mldproxy reload').join('\n');
}

function shortFormNode(sections) {
	return E('div', { 'class': 'alert-message warning' }, [
		E('h4', {}, [ _('Short forms') ]),
		E('p', {}, [
			_('The file has short forms, which this page cannot show: %s. These commands make ' +
			'options of them:').format(sections.map((section) =>
				`mldproxy.${section['.name']}=${section['.type']}`).join(', '))
		]),
		E('pre', {}, [ commandsFor(sections) ])
	]);
}

return view.extend({
	load() {
		return Promise.all([ loadNetworks(), uci.load('mldproxy') ]);
	},

	render([ networks ]) {
		const map = new form.Map('mldproxy', _('MLD/NDP proxy'),
			_('Keeps the hosts behind an IPv6 NDP proxy reachable if the provider’s gateway ' +
			'does MLD snooping. An empty field stands for the default that is shown in it.'));
		const section = map.section(form.TypedSection, 'mldproxy', _('Instances'));
		section.addremove = true;
		section.anonymous = false;
		section.addbtntitle = _('Add instance');
		addGeneral(section, networks);
		addHosts(section);
		addNdpProxy(section);
		addMulticast(section);
		addAdvanced(section);
		const found = shortForms();
		const warnings = (found.length > 0) ? [ shortFormNode(found) ] : [];
		return map.render().then((node) => E('div', { 'class': 'mldproxy' }, [
			E('link', { 'rel': 'stylesheet', 'href': L.resource('mldproxy/style.css') })
		].concat(warnings, node)));
	}
});
