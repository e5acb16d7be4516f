#!/bin/sh
# The feed's CI runs this where the package is installed: test.sh PACKAGE VERSION.

[ "$1" = mldproxy ] || exit 0
[ "$(mldproxy --version)" = "mldproxy $2" ] || exit 1
mldproxy run --test --wait wan lan
