# Stands in for /etc/rc.common: `ash rc.common.sh INITSCRIPT ACTION [INSTANCE]`, on the router whose files are below $IPKG_INSTROOT.
# What the script asks of the system goes into $RECORD: arguments end in octet 31, calls in octet 30.
# shellcheck shell=dash

record() {
	printf '%s\037' "$@" >>"$RECORD"
	printf '\036' >>"$RECORD"
}

here="${0%/*}"
initscript="$1"
service="${initscript##*/}" service="${service%.init}"
action="$2"
# shellcheck source=/dev/null
for file in uci procd system; do . "$here/$file.sh"; done

service_triggers() { :; }
service_data() { :; }
stop_service() { :; }
service_started() { :; }
service_stopped() { :; }

# shellcheck source=/dev/null
. "$initscript"

if [ "$service" = hgw ]; then
	# shellcheck source=/dev/null
	. "$here/hgw.sh"
else
	record program "$PROG" "$UJAIL" "$RUN" "$CHANGED" "$SAID"
	# The program under test in place of the installed one, and a file that stands for ujail, or none.
	# shellcheck disable=SC2034 # for the script
	PROG="$PROG_UNDER_TEST" UJAIL="$UJAIL_UNDER_TEST" RUN=run CHANGED=changed SAID=said
fi

start() {
	procd_open_service "$service" "$initscript"
	start_service
	procd_close_service
	service_started
}

stop() {
	stop_service "$@"
	procd_kill "$service" "$@"
	service_stopped
}

case "$action" in
start | reload) start ;;
stop) shift 2 && stop "$@" ;;
restart) stop && start ;;
status) status_service ;;
esac
