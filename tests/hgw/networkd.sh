#!/bin/sh
# Runs the real systemd-networkd with the files of folder $1, in a namespace of mounts of its own.
# Without a D-Bus it does all that the tests need. On a read-only /sys it waits for no udev.
set -e
networkd=/lib/systemd/systemd-networkd
if [ "$2" != inside ]; then exec unshare --mount --propagation private "$0" "$1" inside; fi
mount -t sysfs -o ro sysfs /sys
files=$(mktemp -d)
cp "$1"/*.network "$files"
chmod -R a+rX "$files"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
mkdir -p /run/systemd/network
cp "$files"/*.network /run/systemd/network
rm -r "$files"
mount -t tmpfs tmpfs /etc/systemd/network
chown -R systemd-network: /run/systemd/netif
SYSTEMD_LOG_TARGET=console exec $networkd
