# Programs of the router: recorded.
# shellcheck shell=dash

logger() { record logger "$@"; }

# `fw4 -q network|device NAME` prints the zone of the lines "network|device NAME ZONE" of the file zones; where there is no such
# file, the router has neither fw4 nor fw3.
if [ -e "$IPKG_INSTROOT/zones" ]; then
	fw4() {
		record fw4 "$@"
		grep -q "^$2 $3 " "$IPKG_INSTROOT/zones" && sed -n "s/^$2 $3 //p" "$IPKG_INSTROOT/zones"
	}
fi
