'use strict';
'require baseclass';
'require ui';
'require mldproxy.daemon as daemon';

/* The buttons that have `mldproxy check` look for faults, and what it found. */

const MARKS = { ok: '✓', warning: '!', problem: '✗' };

function states() {
	return { ok: _('all is well'), warning: _('warning'), problem: _('problem') };
}

/* Commands stand between backticks. */
function withCommands(text) {
	return String(text).split('`').map((part, number) =>
		(number % 2 == 1) ? E('code', {}, [ part ]) : part);
}

function findingNode(finding) {
	const state = MARKS.hasOwnProperty(finding.state) ? finding.state : 'warning';
	const texts = [ E('div', {}, withCommands(finding.text ?? '')) ];
	if (finding.advice)
		texts.push(E('div', { 'class': 'mldproxy-advice' }, [
			E('strong', {}, [ _('What to do:') ]), ' '
		].concat(withCommands(finding.advice))));
	return E('li', { 'class': `mldproxy-finding mldproxy-${state}` }, [
		E('span', { 'class': 'mldproxy-mark', 'title': states()[state] }, [ MARKS[state] ]),
		E('div', {}, texts)
	]);
}

function summary(findings) {
	const count = (state) => findings.filter((one) => one.state == state).length;
	const problems = count('problem');
	const warnings = count('warning');
	if (problems + warnings == 0)
		return _('Everything that was looked at is well.');
	return _('Problems: %d, warnings: %d').format(problems, warnings);
}

/* What is well is folded away, unless there is nothing else. */
function checkNodes(findings) {
	const well = findings.filter((one) => one.state == 'ok');
	const others = findings.filter((one) => one.state != 'ok');
	const nodes = [
		E('p', {}, [ E('strong', {}, [ summary(findings) ]) ]),
		E('ul', { 'class': 'mldproxy-findings' }, others.map(findingNode))
	];
	if (well.length > 0)
		nodes.push(E('details', { 'open': (others.length == 0) ? '' : null }, [
			E('summary', {}, [ _('What is well: %d').format(well.length) ]),
			E('ul', { 'class': 'mldproxy-findings' }, well.map(findingNode))
		]));
	return nodes;
}

function proveNodes(findings) {
	return [ E('ul', { 'class': 'mldproxy-findings' }, findings.map(findingNode)) ];
}

function failureText(error) {
	if (error.kind == 'missing')
		return _('The installed mldproxy is older than this page, and does not know this.');
	if (error.kind == 'denied')
		return _('You may not do this.');
	return error.message;
}

const Doctor = baseclass.extend({
	/** `instance` returns the name of the instance to look at, or null if there is none. */
	__init__(instance, upstream) {
		this.instance = instance;
		this.upstream = upstream;
		this.buttons = [
			E('button', {
				'type': 'button',
				'class': 'btn cbi-button cbi-button-action',
				'data-action': 'check',
				'click': () => this.check()
			}, [ _('Check') ]),
			E('button', {
				'type': 'button',
				'class': 'btn cbi-button cbi-button-action',
				'data-action': 'prove',
				'click': () => this.confirm()
			}, [ _('Prove') ])
		];
		this.result = E('div', { 'class': 'mldproxy-result', 'aria-live': 'polite' });
		this.node = E('div', { 'class': 'mldproxy-doctor' }, [
			E('dl', {}, [
				E('dt', {}, [ this.buttons[0] ]),
				E('dd', {}, [
					_('Looks for what keeps hosts unreachable and streams away. Sends nothing.')
				]),
				E('dt', {}, [ this.buttons[1] ]),
				E('dd', {}, [
					_('Tests whether the gateway’s side snoops MLD. Sends a few packets.')
				])
			]),
			this.result
		]);
	},

	check() {
		return this.run(_('Check'), _('Looking for faults. This takes about 5 seconds.'),
			(name) => daemon.check(name), checkNodes);
	},

	/* Says what will be sent before it is sent. */
	confirm() {
		const upstream = this.upstream();
		ui.showModal(_('Prove whether the gateway’s side snoops MLD'), [
			E('p', {}, [ (upstream == null)
				? _('mldproxy takes the interface of the default route, and sends on it:')
				: _('mldproxy sends on %s:').format(upstream) ]),
			E('ul', { 'class': 'mldproxy-sends' }, [
				E('li', {}, [
					_('Neighbor Solicitations for two random addresses in the prefix of the ' +
					'upstream, to see that nobody uses them,')
				]),
				E('li', {}, [ _('ICMPv6 echo requests to the gateway from these addresses,') ]),
				E('li', {}, [
					_('MLD reports that join the solicited-node group of one of them, and leave ' +
					'it at the end.')
				])
			]),
			E('p', {}, [
				_('It takes about 10 seconds. The hosts and a running mldproxy are not disturbed.')
			]),
			E('div', { 'class': 'right' }, [
				E('button', {
					'type': 'button', 'class': 'btn', 'click': ui.hideModal
				}, [ _('Cancel') ]),
				' ',
				E('button', {
					'type': 'button',
					'class': 'btn cbi-button cbi-button-positive important',
					'data-action': 'confirm',
					'click': () => { ui.hideModal(); return this.prove(); }
				}, [ _('Send the packets') ])
			])
		]);
	},

	prove() {
		return this.run(_('Prove'), _('Sending and listening. This takes about 10 seconds.'),
			(name) => daemon.prove(name), proveNodes);
	},

	/* While one runs, neither button can be pressed. */
	run(title, progress, ask, nodes) {
		this.enable(false);
		this.show(title, [ E('p', { 'class': 'spinning' }, [ progress ]) ]);
		return ask(this.instance()).then(
			(findings) => this.show(title, nodes(findings)),
			(error) => this.show(title, [
				E('div', { 'class': 'alert-message warning' }, [ failureText(error) ])
			])
		).finally(() => this.enable(true));
	},

	show(title, nodes) {
		L.dom.content(this.result, [ E('h3', {}, [ title ]) ].concat(nodes));
	},

	enable(enabled) {
		const mayWrite = L.hasViewPermission();
		this.buttons[0].disabled = !enabled;
		this.buttons[1].disabled = !enabled || mayWrite === false;
	}
});

return baseclass.extend({
	/**
	 * The buttons and their results, in `node`. The functions return the name of the instance and
	 * that of its upstream, or null.
	 */
	create(instance, upstream) {
		const doctor = new Doctor(instance, upstream);
		doctor.enable(true);
		return doctor;
	}
});
