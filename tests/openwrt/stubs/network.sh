# shellcheck shell=dash
# Stands in for /lib/functions/network.sh: the file up has a line "NETWORK DEVICE" for each network that
# is up, and the file below one for each network that has a device below it, up or down.

network_line() {
	# The real one makes a variable's name of the network's: anything else is an error there, or becomes shell text.
	case "$3" in *[!A-Za-z0-9_]*) echo "network.sh: $3 is no name" >&2 ;; esac
	network_device=$(sed -n "s/^$3 //p" "$IPKG_INSTROOT/$1")
	eval "$2=\"\$network_device\""
	[ -n "$network_device" ]
}

network_get_device() { network_line up "$@"; }
network_get_physdev() { network_line below "$@"; }

# The files prefixes and assignments have a line "NETWORK PREFIX" for each network that has one.
network_get_prefixes6() { network_line prefixes "$@"; }
network_get_prefix_assignments6() { network_line assignments "$@"; }
