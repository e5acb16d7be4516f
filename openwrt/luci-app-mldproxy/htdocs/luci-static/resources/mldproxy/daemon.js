'use strict';
'require baseclass';
'require rpc';

/*
 * Asks the service manager which instances run, and rpcd's plugin what they know and do. Hosts
 * choose parts of the answers, so whoever shows them has to make text nodes of them.
 */

/** Neighbor states, that of the host who is reached best first. */
const STATES = [ 'proxied', 'confirmed', 'heard', 'asked', 'probed' ];

function declare(method) {
	return rpc.declare({
		object: 'mldproxy',
		method: method,
		params: [ 'name' ],
		reject: true
	});
}

/* LuCI sends the calls of one moment in one request, whose answers come together. These two take
 * seconds, and must not hold up the others. */
function declareSlow(method) {
	return rpc.declare({
		object: 'mldproxy',
		method: method,
		params: [ 'name' ],
		reject: true,
		nobatch: true
	});
}

const callStatus = declare('status');
const callNeighbors = declare('neighbors');
const callUpstreamNeighbors = declare('upstream_neighbors');
const callGroups = declare('groups');
const callStreams = declare('streams');
const callCheck = declareSlow('check');
const callProve = declareSlow('prove');

const callServices = rpc.declare({
	object: 'service',
	method: 'list',
	params: [ 'name' ],
	expect: { '': {} }
});

const callHostHints = rpc.declare({
	object: 'luci-rpc',
	method: 'getHostHints',
	expect: { '': {} }
});

/**
 * Why there is no answer. `kind` is `missing` (rpcd has no such plugin), `denied` (the user may not
 * call it), or `silent` (the daemon does not run or does not answer). `message` is the reason in
 * the words of whoever gave it.
 */
function failure(kind, message) {
	const error = new Error(message);
	error.kind = kind;
	return error;
}

/* Turns what rpc.js throws into a failure. The numbers are those of ubus (3 and 4: no such method,
 * no such object; 6: denied) and of JSON-RPC (the same, and -32601). */
function refused(error) {
	const message = String(error?.message ?? error);
	if (/ubus code [34]\b|-32000\b|-32601\b/.test(message))
		return failure('missing', message);
	if (/ubus code 6\b|-32002\b/.test(message))
		return failure('denied', message);
	return failure('silent', message);
}

function ask(call, name) {
	return call(name ?? undefined).then(function(answer) {
		if (answer === null || typeof answer != 'object')
			throw failure('silent', '');
		if (answer.error != null)
			throw failure('silent', String(answer.error));
		return answer;
	}, function(error) {
		throw refused(error);
	});
}

/* The groups of addresses have as many digits as their numbers have, which is no order of texts. */
function inOrder(address) {
	return String(address).replace(/[0-9a-f]+/g, (digits) => digits.padStart(4, '0'));
}

function byText(a, b) {
	return (a < b) ? -1 : (a > b) ? 1 : 0;
}

/* An answer of rpcd may hold null or nothing for an empty list. */
function list(answer) {
	return Array.isArray(answer?.list) ? answer.list : [];
}

/* The findings of an answer, worst first. */
function sorted(answer) {
	const badness = { problem: 0, warning: 1, ok: 2 };
	const findings = Array.isArray(answer.findings) ? answer.findings : [];
	return findings.slice().sort(function(a, b) {
		return (badness[a.state] ?? 1) - (badness[b.state] ?? 1);
	});
}

return baseclass.extend({
	STATES: STATES,

	/** The names of the instances that procd has, in order, and whether each runs. */
	instances() {
		return callServices('mldproxy').then(function(services) {
			const found = services?.mldproxy?.instances ?? {};
			return Object.keys(found).sort().map(function(name) {
				return { name: name, running: found[name].running === true };
			});
		}, function(error) {
			throw refused(error);
		});
	},

	/** The names of hosts by their MAC addresses in lower case; empty where nobody knows any. */
	hostNames() {
		return callHostHints().then(function(hints) {
			const names = {};
			for (const mac in hints)
				if (hints[mac]?.name)
					names[mac.toLowerCase()] = String(hints[mac].name);
			return names;
		}, function() {
			return {};
		});
	},

	/**
	 * What an instance knows and does: `status` without lists, and the lists. Asks for the lists
	 * that are not empty. Rejects with a failure.
	 */
	look(name) {
		return ask(callStatus, name).then(function(status) {
			const wanted = (count, call) => count > 0 ? ask(call, name).then(list) : [];
			return Promise.all([
				wanted(status.neighbors?.count, callNeighbors),
				wanted(status.upstream_neighbors?.count, callUpstreamNeighbors),
				wanted(status.groups?.count, callGroups),
				wanted(status.multicast?.streams?.count, callStreams)
			]).then(function(lists) {
				const by = (list, key) => list.slice().sort((a, b) =>
					byText(inOrder(a[key] ?? a.group), inOrder(b[key] ?? b.group)));
				return {
					status: status,
					neighbors: by(lists[0], 'address'),
					upstreamNeighbors: by(lists[1], 'address'),
					groups: by(lists[2], 'group'),
					streams: lists[3]
				};
			});
		});
	},

	/** The findings of `mldproxy check`, worst first. Takes about 5 s. Rejects with a failure. */
	check(name) {
		return ask(callCheck, name).then(sorted);
	},

	/**
	 * The findings of `mldproxy check --prove`, the verdict first. Takes about 10 s. Rejects with a
	 * failure.
	 */
	prove(name) {
		return ask(callProve, name).then(function(answer) {
			const isVerdict = (finding) => finding.check == 'prove';
			const findings = sorted(answer);
			return findings.filter(isVerdict)
				.concat(findings.filter((finding) => !isVerdict(finding)));
		});
	},

	/**
	 * The hosts behind neighbors, each a MAC address on an interface: `{ mac, interface, name,
	 * addresses, state }`. `name` is null for a host without one; `state` is the best of those of
	 * its addresses. Their order does not depend on their states.
	 */
	hosts(neighbors, names) {
		const hosts = new Map();
		for (const neighbor of neighbors) {
			const key = `${neighbor.interface} ${neighbor.mac}`;
			if (!hosts.has(key))
				hosts.set(key, {
					mac: neighbor.mac,
					interface: neighbor.interface,
					name: names[neighbor.mac] ?? null,
					addresses: [],
					state: neighbor.state
				});
			const host = hosts.get(key);
			if (neighbor.address)
				host.addresses.push(neighbor.address);
			if (STATES.indexOf(neighbor.state) < STATES.indexOf(host.state))
				host.state = neighbor.state;
		}
		return Array.from(hosts.values()).sort(function(a, b) {
			return byText(a.interface, b.interface)
				|| byText(a.name == null, b.name == null)
				|| byText(a.name?.toLowerCase() ?? '', b.name?.toLowerCase() ?? '')
				|| byText(inOrder(a.addresses[0] ?? a.mac), inOrder(b.addresses[0] ?? b.mac));
		});
	}
});
