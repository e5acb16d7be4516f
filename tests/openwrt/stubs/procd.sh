# procd_*: recorded, each call with its arguments; the test does with them what procd does. ubus tells the
# firewall data of the service, the service itself (the file services), and the networks of netifd.
# shellcheck shell=dash

procd_open_service() { record procd_open_service "$@"; }

procd_close_service() {
	record procd_close_service
	service_triggers
	: >"$IPKG_INSTROOT/json"
	service_data
	mv "$IPKG_INSTROOT/json" "$IPKG_INSTROOT/data"
}

procd_kill() {
	record procd_kill "$@"
	rm -f "$IPKG_INSTROOT/data"
	# Of an instance alone the test takes notice.
	[ -n "$2" ] || echo '{}' >"$IPKG_INSTROOT/services"
}

_procd_status() { echo running; }
procd_open_instance() { record procd_open_instance "$@"; }
procd_close_instance() { record procd_close_instance "$@"; }
procd_set_param() { record procd_set_param "$@"; }
procd_append_param() { record procd_append_param "$@"; }
procd_add_jail() { record procd_add_jail "$@"; }
procd_add_jail_mount_rw() { record procd_add_jail_mount_rw "$@"; }
procd_add_validation() { record procd_add_validation "$("$@")"; }
procd_add_reload_trigger() { record procd_add_reload_trigger "$@"; }
procd_add_interface_trigger() { record procd_add_interface_trigger "$@"; }
procd_set_config_changed() { record procd_set_config_changed "$@"; }

json() { echo "$*" >>"$IPKG_INSTROOT/json"; }
json_add_array() { json array "$@"; }
json_add_object() { json object "$@"; }
json_add_string() { json string "$@"; }
json_close_array() { json end; }
json_close_object() { json end; }

ubus() {
	record ubus "$@"
	case "$*" in
	"call service list "*) cat "$IPKG_INSTROOT/services" ;;
	"list network.interface.*") sed 's/ .*//; s/^/network.interface./' "$IPKG_INSTROOT/below" ;;
	*) [ ! -e "$IPKG_INSTROOT/data" ] || cat "$IPKG_INSTROOT/data" ;;
	esac
}

# validate_data reads the file, so it does not see what config_set has set. It prints assignments, and the types for a
# section without a name. Only the types of the script are here.
validate_data() {
	local package="$1" section="$3" tuple name type default value='' code=0
	[ -n "$section" ] && config_load "$package"
	shift 3
	for tuple; do
		name="${tuple%%:*}" type="${tuple#*:}" default=
		case "$type" in *:*) default="${type#*:}" type="${type%%:*}" ;; esac
		if [ -z "$section" ]; then
			echo "$name $type"
			continue
		fi
		config_get value "$section" "$name" "$default"
		case "$type:$value" in
		*:) echo "unset -v $name;" ;;
		bool:1 | bool:on | bool:true | bool:yes | bool:enabled) echo "$name=1;" ;;
		bool:0 | bool:off | bool:false | bool:no | bool:disabled) echo "$name=0;" ;;
		bool:* | range*:*[!0-9]* | macaddr:*[!0-9a-f:]* | hexstring:*[!0-9a-f]* | uciname:*[!A-Za-z0-9_]*)
			echo "unset -v $name;" && code=255
			;;
		"range("*)
			type="${type#range(}" type="${type%)}"
			if [ "$value" -ge "${type%,*}" ] && [ "$value" -le "${type#*,}" ]; then
				echo "$name=$value;"
			else
				echo "unset -v $name;" && code=255
			fi
			;;
		*) echo "$name='$(echo "$value" | sed "s/'/'\"'\"'/g")';" ;;
		esac
	done
	return $code
}

uci_load_validate() {
	local validated_package="$1" validated_section="$3" validated_call="$4" validated_tuple validated_values validated_code
	if [ -z "$3" ]; then
		shift 4
		validate_data "$validated_package" "$validated_package" "" "$@"
		return
	fi
	validated_values="$1 $2 $3"
	shift 4
	for validated_tuple; do eval "local ${validated_tuple%%:*}"; done
	# shellcheck disable=SC2086
	validated_values=$(validate_data $validated_values "$@")
	validated_code=$?
	eval "$validated_values"
	"$validated_call" "$validated_section" "$validated_code"
}
