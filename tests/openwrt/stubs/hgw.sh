# What the init script of the home gateway's package needs besides: its router has programs in place
# of the functions above.
# shellcheck shell=dash

unset -f uci ubus logger

config_load() {
	for uci_variable in $uci_lists; do unset "$uci_variable"; done
	uci_lists='' uci_sections='' uci_count=0
	uci export "$1" >"$IPKG_INSTROOT/exported" || return 1
	# shellcheck source=/dev/null
	. "$IPKG_INSTROOT/exported"
}

service_data() { :; }
