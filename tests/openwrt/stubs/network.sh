# shellcheck shell=dash
# Stands in for /lib/functions/network.sh: networks that are up are the lines "NETWORK DEVICE" of the file up.

network_get_device() {
	# The real one makes a variable's name of the network's: anything else is an error there, or becomes shell text.
	case "$2" in *[!A-Za-z0-9_]*) echo "network_get_device: $2 is no name" >&2 ;; esac
	network_device=$(sed -n "s/^$2 //p" "$IPKG_INSTROOT/up")
	[ -n "$network_device" ] || return 1
	eval "$1=\"\$network_device\""
}
