'use strict';
'require baseclass';

/* How the page says what the daemon tells by keywords and numbers. Values that a newer daemon may
 * send, and that this page does not know, are shown as they are. */

const NEIGHBOR_STATES = {
	proxied: _('proxied'),
	confirmed: _('confirmed'),
	heard: _('heard'),
	asked: _('asked'),
	probed: _('probed')
};

const NEIGHBOR_MEANINGS = {
	proxied: _('The kernel answers the gateway for it.'),
	confirmed: _('The host answered for it.'),
	heard: _('The host was heard, and has not answered for it yet.'),
	asked: _('The host was asked by MLD, and has not answered yet.'),
	probed: _('The host did not answer an MLD query, and is probed by Neighbor Solicitations.')
};

const LINK_STATES = {
	usable: _('up'),
	missing: _('does not exist'),
	part_of: _('is a port of another interface'),
	down: _('down'),
	no_carrier: _('no carrier'),
	small_mtu: _('MTU below 1280'),
	no_link_local: _('no link-local address')
};

const MEMBERSHIPS = {
	none: _('not joined'),
	joining: _('joining'),
	joined: _('joined'),
	leaving: _('leaving'),
	at_home: _('stays at home'),
	mldv1: _('impossible by MLDv1')
};

const TABLES = {
	in_use: _('Another program owns the multicast routing table, so no stream is forwarded.'),
	unsupported: _('The kernel has no IPv6 multicast routing, so no stream is forwarded.'),
	refused: _('The kernel refuses its multicast routing table, so no stream is forwarded.')
};

function wordOf(words, keyword) {
	return words.hasOwnProperty(keyword) ? words[keyword] : String(keyword ?? '');
}

return baseclass.extend({
	neighborState: (keyword) => wordOf(NEIGHBOR_STATES, keyword),
	neighborMeaning: (keyword) => wordOf(NEIGHBOR_MEANINGS, keyword),
	linkState: (keyword) => wordOf(LINK_STATES, keyword),
	membership: (keyword) => wordOf(MEMBERSHIPS, keyword),
	/** Why no stream is forwarded; empty while the daemon owns the table. */
	tableTrouble: (keyword) => (keyword == 'owned') ? '' : wordOf(TABLES, keyword),

	/** A number of seconds; a dash for null. */
	time(seconds) {
		if (seconds == null)
			return '–';
		if (seconds < 100)
			return _('%d s').format(seconds);
		if (seconds < 6000)
			return _('%d min').format(Math.floor(seconds / 60));
		if (seconds < 172800)
			return _('%d h').format(Math.floor(seconds / 3600));
		return _('%d d').format(Math.floor(seconds / 86400));
	},

	mldVersion: (version) => (version == null) ? '' : 'MLDv' + version,

	/** An address that is long is cut to its first group and its interface identifier. */
	shortAddress(address) {
		const groups = String(address).split(':');
		if (address.length <= 26 || groups.length < 8)
			return String(address);
		return [ groups[0], '…' ].concat(groups.slice(4)).join(':');
	}
});
