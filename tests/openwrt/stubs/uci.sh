# config_* over UCI's own text, which is shell text of the three commands config, option and list.
# As in OpenWrt, an option that the file loaded last does not have keeps the value of a file loaded before, lists excepted.
# shellcheck shell=dash disable=SC2034,SC2154

uci_lists=''

config() {
	uci_count=$((uci_count + 1))
	uci_section="${2:-$(printf 'cfg%02x4711' "$uci_count")}"
	uci_sections="$uci_sections $uci_section"
	config_set "$uci_section" TYPE "$1"
}

option() {
	config_set "$uci_section" "$1" "$2"
}

list() {
	config_get uci_before "$uci_section" "$1"
	uci_lists="$uci_lists UCI__${uci_section}__$1"
	config_set "$uci_section" "$1" "${uci_before:+$uci_before }$2"
}

# Sets `config_text` to the file of a configuration.
config_find() {
	config_text="$IPKG_INSTROOT/etc/config/$1"
	[ -e "$config_text" ]
}

config_load() {
	for uci_variable in $uci_lists; do unset "$uci_variable"; done
	uci_lists='' uci_sections='' uci_count=0
	config_find "$1" || return 1
	# shellcheck source=/dev/null
	. "$config_text"
}

config_set() {
	eval "UCI__${1}__$2=\"\$3\""
}

config_get() {
	case "$2$3" in
	*[!A-Za-z0-9_]*) ;;
	*) eval "$1=\"\${UCI__${2}__$3:-\$4}\"" ;;
	esac
	echo "$2 $3" >>"$IPKG_INSTROOT/asked"
}

config_get_bool() {
	config_get uci_value "$2" "$3" "$4"
	case "$uci_value" in
	1 | on | true | yes | enabled) uci_value=1 ;;
	0 | off | false | no | disabled) uci_value=0 ;;
	*) uci_value="$4" ;;
	esac
	eval "$1=\"\$uci_value\""
}

# config_foreach FUNCTION [TYPE [ARGUMENT...]]
config_foreach() {
	local uci_function="$1" uci_type="$2" uci_each uci_this
	shift
	[ $# = 0 ] || shift
	for uci_each in $uci_sections; do
		config_get uci_this "$uci_each" TYPE
		case "$uci_type" in "" | "$uci_this") "$uci_function" "$uci_each" "$@" ;; esac
	done
}

# `uci -q get network.NAME`: the networks of /etc/config/network are the names in the file networks;
# network.NAME.proto is in the lines "NAME PROTO" of the file protocols.
uci() {
	record uci "$@"
	[ "$1 $2" = "-q get" ] || return 1
	case "$3" in
	network.*.proto) sed -n "s/^$(echo "$3" | sed 's/^network[.]//; s/[.]proto$//') //p" "$IPKG_INSTROOT/protocols" | grep . ;;
	network.*) grep -qx "${3#network.}" "$IPKG_INSTROOT/networks" && echo interface ;;
	*) return 1 ;;
	esac
}
