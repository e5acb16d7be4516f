"""Stands in for OpenWrt's: `jsonfilter -e PATH [-e PATH …]` prints what is at paths of the JSON on its
standard input, one value a line, and fails where there is nothing."""

import json
import re
import sys


def find(values, path):
    """Returns the values at a path, in which `[*]` stands for every element of a list."""
    for name, quoted, every in re.findall(r"\.(\w+)|\['([^']*)'\]|(\[\*\])", path):
        if every:
            values = [element for value in values for element in value]
        else:
            values = [value[name or quoted] for value in values if (name or quoted) in value]
    return values


try:
    document = json.load(sys.stdin)
    found = [value for path in sys.argv[2::2] for value in find([document], path)]
except (TypeError, ValueError):
    found = []
for value in found:
    print(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
sys.exit(0 if found else 1)
