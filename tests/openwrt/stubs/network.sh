# shellcheck shell=dash
# Stands in for /lib/functions/network.sh: networks that are up are the lines "NETWORK DEVICE" of the file up, and what netifd
# has below each, up or down, the lines "NETWORK DEVICE" of the file below.

network_line() {
	# The real one makes a variable's name of the network's: anything else is an error there, or becomes shell text.
	case "$3" in *[!A-Za-z0-9_]*) echo "network.sh: $3 is no name" >&2 ;; esac
	network_device=$(sed -n "s/^$3 //p" "$IPKG_INSTROOT/$1")
	eval "$2=\"\$network_device\""
	[ -n "$network_device" ]
}

network_get_device() { network_line up "$@"; }
network_get_physdev() { network_line below "$@"; }
