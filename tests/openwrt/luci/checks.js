'use strict';

/* What each test does with the page, and what it expects to see. */

function expect(holds, what) {
	if (!holds)
		report(`error: expected: ${what}`);
}

function expectText(node, text) {
	expect(node?.textContent.includes(text), `“${text}” in “${node?.textContent.slice(0, 400)}”`);
}

/* Waits, in the browser's virtual time. */
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const all = (node, selector) => [ ...node.querySelectorAll(selector) ];
const rows = (view) => all(view, '.mldproxy-tables tr:not(.table-titles)');

function press(node, selector) {
	const button = node.querySelector(selector);
	expect(button != null, `something that is ${selector}`);
	button?.click();
}

async function openTable(view, name) {
	press(view, `[data-table="${name}"]`);
	await sleep(0.1);
}

const CHECKS = {
	async no_hosts(view) {
		expectText(view, 'Asking mldproxy…');
		await sleep(1);
		expect(!view.textContent.includes('Asking mldproxy…'), 'no sign of asking any more');
		expectText(view.querySelector('.mldproxy-picture'), 'No host heard yet');
		expectText(view.querySelector('.mldproxy-tables'), 'No host has been heard yet.');
		await openTable(view, 'streams');
		expectText(view.querySelector('.mldproxy-tables'), 'This instance is no MLD proxy.');
		await openTable(view, 'counters');
		expect(view.querySelector('.mldproxy-tables') != null, 'counters');
		await openTable(view, 'neighbors');
	},

	async three_hosts(view) {
		await sleep(1);
		const picture = view.querySelector('.mldproxy-picture');
		for (const text of [ 'Gateway', 'Switch', 'Router', 'wan', 'br-lan', 'Querier (MLDv2)' ])
			expectText(picture, text);
		expect(all(picture, '.mldproxy-host').length == 3, 'three hosts');
		expect(all(picture, '.mldproxy-proxied').length == 2, 'two hosts that are proxied');
		expect(all(picture, '.mldproxy-probed').length == 1, 'one host that is probed');
		expectText(picture, RECORDED.hostName);
		expectText(picture, 'Groups joined: ');
		expectText(picture, 'ff02::1:ff');
		expectText(view.querySelector('.mldproxy-legend'), 'proxied: 2');
		expectText(view.querySelector('.mldproxy-facts'), 'NDP proxy');

		expect(rows(view).length >= 4, 'neighbors');
		press(view, '.mldproxy-legend .mldproxy-probed');
		expect(rows(view).length == 1, 'the one host that is probed');
		await openTable(view, 'groups');
		expectText(view.querySelector('.mldproxy-tables'), 'joined');
		await openTable(view, 'queriers');
		expectText(view.querySelector('.mldproxy-tables'), 'fe80:');
		await openTable(view, 'counters');
		expectText(view.querySelector('.mldproxy-tables'), 'groups_joined');
		await openTable(view, 'neighbors');

		/* A refresh keeps the search, and the hosts. */
		const field = view.querySelector('input[type="search"]');
		field.value = 'probed';
		field.dispatchEvent(new Event('input'));
		await sleep(6);
		expect(field.isConnected && field.value == 'probed', 'the search as it was');
		expect(rows(view).length == 1, 'the found row alone');
		field.value = '';
		field.dispatchEvent(new Event('input'));
	},

	/* In another language nothing but its width is looked at. */
	async translated(view) {
		await sleep(1);
		expect(all(view, '.mldproxy-host').length == 3, 'three hosts');
		expectText(view, RECORDED.translations['Neighbors']);
	},

	async anything(view) {
		await sleep(1);
		expect(view.textContent.length > 0, 'a text');
	},

	async thousand_hosts(view) {
		await sleep(1);
		const picture = view.querySelector('.mldproxy-picture');
		const drawn = all(picture, '.mldproxy-host').length;
		expect(drawn == 24 || drawn == 10, `a few hosts, not ${drawn}`);
		expectText(picture, `and ${1000 - drawn} more hosts`);
		expectText(view.querySelector('.mldproxy-tables'), '1 to 50 of 1000');
		expect(rows(view).length == 50, 'a page of hosts');
		press(view, '.mldproxy-pager button:last-child');
		expectText(view.querySelector('.mldproxy-tables'), '51 to 100 of 1000');
		await sleep(6);
		expectText(view.querySelector('.mldproxy-tables'), '51 to 100 of 1000');
		const field = view.querySelector('input[type="search"]');
		field.value = '::10:3E8';
		field.dispatchEvent(new Event('input'));
		expect(rows(view).length == 1, 'the host that is looked for');
		expectText(view.querySelector('.mldproxy-found'), '1 found');
		field.value = 'nothing has this';
		field.dispatchEvent(new Event('input'));
		expectText(view.querySelector('.mldproxy-tables'), 'Nothing matches the search.');
		field.value = '';
		field.dispatchEvent(new Event('input'));
	},

	async streams(view) {
		await sleep(1);
		const picture = view.querySelector('.mldproxy-picture');
		expectText(picture, 'this router is the querier');
		expectText(picture, 'streams: 1');
		expectText(picture, 'Groups joined for streams: 1');
		await openTable(view, 'queriers');
		expectText(view.querySelector('.mldproxy-tables'), 'this router (fe80::10)');
		await openTable(view, 'streams');
		const [ row ] = rows(view);
		for (const text of [ '2001:db8:1::10', 'ff3e::4000:1', 'wan', 'br-lan', '1234', 'joined' ])
			expectText(row, text);
	},

	async two_instances(view) {
		await sleep(1);
		expectText(view.querySelector('.mldproxy-facts'), 'NDP proxy');
		press(view, '[data-instance="tv"]');
		expectText(view, 'Asking mldproxy…');
		await sleep(1);
		expectText(view.querySelector('.mldproxy-facts'), 'MLD proxy');
		expect(view.querySelector('.cbi-tab [data-instance="tv"]') != null, 'the tab of tv');
	},

	async stopped(view) {
		await sleep(1);
		expectText(view, 'mldproxy does not run');
		expectText(view, 'logread -e mldproxy');
		expect(view.querySelector('a[href="/cgi-bin/luci/admin/services/mldproxy/settings"]') != null,
			'a link to the settings');
		expect(view.querySelector('.mldproxy-tables').style.display == 'none', 'no tables');
	},

	async silent(view) {
		await sleep(1);
		expectText(view, 'mldproxy does not answer');
		expectText(view, 'no mldproxy answers on ');
	},

	async without_plugin(view) {
		await sleep(1);
		expectText(view, 'rpcd does not know mldproxy');
		press(view, '[data-action="check"]');
		await sleep(6);
		expectText(view.querySelector('.mldproxy-result'), 'older than this page');
	},

	async check_finds(view) {
		await sleep(1);
		press(view, '[data-action="check"]');
		expectText(view.querySelector('.mldproxy-result'), 'Looking for faults');
		expect(view.querySelector('[data-action="prove"]').disabled, 'one after the other');
		await sleep(6);
		const result = view.querySelector('.mldproxy-result');
		expect(!view.querySelector('[data-action="check"]').disabled, 'the button again');
		expectText(result, 'warnings: ');
		expectText(result, 'What to do:');
		expect(all(result, '.mldproxy-warning .mldproxy-advice').length > 0, 'what to do');
		expect(all(result, 'details .mldproxy-ok').length > 3, 'what is well');
		/* What is worse comes first. */
		const marks = all(result, '.mldproxy-mark').map((mark) => '✗!✓'.indexOf(mark.textContent));
		expect(marks.every((mark, number) => number == 0 || marks[number - 1] <= mark), 'an order');
	},

	async prove_tells(view) {
		await sleep(1);
		press(view, '[data-action="prove"]');
		expect(!calls.has('mldproxy.prove'), 'nothing sent before it is confirmed');
		const modal = document.getElementById('modal_overlay');
		expectText(modal, 'mldproxy sends on wan:');
		expectText(modal, 'echo requests');
		press(modal, '[data-action="confirm"]');
		expect(document.getElementById('modal_overlay') == null, 'the question is gone');
		expectText(view.querySelector('.mldproxy-result'), 'about 10 seconds');
		await sleep(11);
		/* The verdict comes first, whatever else was found. */
		const [ verdict ] = all(view, '.mldproxy-result .mldproxy-finding');
		expectText(verdict, 'mldproxy is what you need');
	},

	async prove_asks(view) {
		await sleep(1);
		press(view, '[data-action="prove"]');
	},

	async only_reading(view) {
		await sleep(1);
		expect(!view.querySelector('[data-action="check"]').disabled, 'check');
		expect(view.querySelector('[data-action="prove"]').disabled, 'no right to send');
	},

	/* Names and findings that look like HTML stay texts. */
	async hostile(view) {
		await sleep(1);
		for (const name of [ 'groups', 'streams', 'queriers', 'counters', 'neighbors' ])
			await openTable(view, name);
		expectText(view.querySelector('.mldproxy-picture'), '<img src=x');
		expectText(view.querySelector('.mldproxy-tables'), '<img src=x');
		press(view, '[data-action="check"]');
		await sleep(6);
		expectText(view.querySelector('.mldproxy-result'), '<img src=x');
		expect(document.querySelector('img, script:not([data-own])') == null, 'no HTML of others');
	},

	async settings(view) {
		expectText(view, 'Upstream');
		expect(view.querySelector('.alert-message') == null, 'no warning');
		expect(view.querySelector('#choices-upstream option[value="wan6"]') != null, 'networks');
	},

	async short_forms(view) {
		const warning = view.querySelector('.alert-message.warning');
		expectText(warning, 'mldproxy.upstream=wan6');
		expectText(warning, 'uci delete mldproxy.upstream');
		expectText(warning, "uci set mldproxy.main.upstream='wan6'");
		/* An option of the section wins over its short form. */
		expectText(warning, 'uci delete mldproxy.enabled');
		expect(!warning.textContent.includes('mldproxy.main.enabled'), 'the option stays as it is');
	}
};
