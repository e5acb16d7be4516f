"""Stands in for OpenWrt's: `jsonfilter -e PATH` prints what is at a path of the JSON on its standard
input, and fails where there is nothing."""

import json
import re
import sys

try:
    value = json.load(sys.stdin)
    for name, quoted in re.findall(r"\.(\w+)|\['([^']*)'\]", sys.argv[2]):
        value = value[name or quoted]
except (KeyError, TypeError, ValueError):
    sys.exit(1)
print(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
