"""A home gateway (HGW) as far as the tests need one:

    client.py INTERFACE ra            prints what a Router Advertisement says
    client.py INTERFACE request FILE  gets a prefix (Solicit, Request)
    client.py INTERFACE renew FILE    renews it

The last two print prefixes with their valid lifetimes, and all options but those of DHCPv6 itself,
as JSON, and keep the lease in FILE."""

import json
import os
import socket
import struct
import sys
import time
from ipaddress import IPv6Address
from pathlib import Path

INTERFACE = sys.argv[1]
INDEX = socket.if_nametoindex(INTERFACE)
SOLICIT, ADVERTISE, REQUEST, RENEW, REPLY = 1, 2, 3, 5, 7
CLIENT_ID, SERVER_ID, OPTION_REQUEST, ELAPSED_TIME, IA_PD, IA_PREFIX = 1, 2, 6, 8, 25, 26
DUID = bytes.fromhex("00030001020000000a07")
IA = b"\0\0\0\7" + bytes(8)


def option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def options(octets: bytes) -> list[tuple[int, bytes]]:
    found = []
    while octets:
        code, size = struct.unpack("!HH", octets[:4])
        found.append((code, octets[4 : 4 + size]))
        octets = octets[4 + size :]
    return found


def exchange(kind: int, expected: int, more: bytes) -> list[tuple[int, bytes]]:
    """Sends a message once a second until the expected answer comes."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.bind(("::", 546, 0, INDEX))
        udp.settimeout(1)
        transaction = os.urandom(3)
        message = bytes([kind]) + transaction + option(CLIENT_ID, DUID)
        message += option(ELAPSED_TIME, bytes(2)) + more
        message += option(OPTION_REQUEST, struct.pack("!5H", 17, 22, 23, 24, 31))
        end = time.monotonic() + 30
        while time.monotonic() < end:
            udp.sendto(message, ("ff02::1:2", 547, 0, INDEX))
            try:
                answer = udp.recv(65536)
            except TimeoutError:
                continue
            if answer[:4] == bytes([expected]) + transaction:
                return options(answer[4:])
    sys.exit("no answer")


def show(answer: list[tuple[int, bytes]], file: Path) -> None:
    prefixes = {}
    for code, value in answer:
        if code == IA_PD:
            for inner, prefix in options(value[12:]):
                if inner == IA_PREFIX:
                    _, valid, size = struct.unpack("!IIB", prefix[:9])
                    prefixes[f"{IPv6Address(prefix[9:25])}/{size}"] = valid
    rest = [[code, value.hex()] for code, value in answer if code > 16 and code != IA_PD]
    print(json.dumps({"prefixes": prefixes, "options": sorted(rest)}))
    known = {code: value.hex() for code, value in answer if code in (SERVER_ID, IA_PD)}
    file.write_text(json.dumps(known))


def request(file: Path) -> None:
    answer = exchange(SOLICIT, ADVERTISE, option(IA_PD, IA))
    chosen = b"".join(option(*each) for each in answer if each[0] in (SERVER_ID, IA_PD))
    show(exchange(REQUEST, REPLY, chosen), file)


def renew(file: Path) -> None:
    known = json.loads(file.read_text())
    held = b"".join(option(int(code), bytes.fromhex(value)) for code, value in known.items())
    show(exchange(RENEW, REPLY, held), file)


def advertisement() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        icmp.settimeout(1)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            icmp.sendto(bytes([133]) + bytes(7), ("ff02::2", 0, 0, INDEX))
            try:
                answer = icmp.recv(65536)
            except TimeoutError:
                continue
            if answer[0] == 134:
                lifetime, reachable, retransmission = struct.unpack("!HII", answer[6:16])
                found, rest = {}, answer[16:]
                while rest:
                    found[rest[0]] = rest[2 : 8 * rest[1]].hex()
                    rest = rest[8 * rest[1] :]
                flags = answer[5] & 0xC0
                print(flags, lifetime, reachable, retransmission, sorted(found), found[5])
                return
    sys.exit("no advertisement")


match sys.argv[2:]:
    case ["ra"]:
        advertisement()
    case ["request", name]:
        request(Path(name))
    case ["renew", name]:
        renew(Path(name))
