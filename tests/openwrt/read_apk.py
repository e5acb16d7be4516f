#!/usr/bin/env python3
"""Reads a package or an index of apk-tools 3 by the format's description, and shares no code with
the writer. Ends with an error if any octet is not what the format or a hash says.

Prints what the file holds, and with a second argument unpacks it into that folder: the files in
`root`, the scripts in `scripts`, the `payload` of the document, the container in `plain`, and for
openssl the `signature` and the `message` that it signs."""

import hashlib
import struct
import sys
import zlib
from pathlib import Path

INFO = {
    1: "name", 2: "version", 3: "hash", 4: "description", 5: "arch", 6: "license", 7: "origin",
    8: "maintainer", 9: "url", 12: "installed-size", 13: "file-size", 15: "depends",
}  # fmt: skip
SCRIPTS = {3: "post-install", 4: "pre-deinstall", 7: "post-upgrade"}


def main(file: Path, out: Path | None) -> None:
    octets = file.read_bytes()
    if octets.startswith(b"ADBd"):
        octets = zlib.decompress(octets[4:], -15)
    assert octets[:4] == b"ADB.", octets[:4]
    kind = octets[4:8]
    blocks = list(split(octets))
    assert [number for number, _ in blocks] == sorted(number for number, _ in blocks)
    (first, payload), *rest = blocks
    assert first == 0 and payload[:4] == bytes(4)
    root = value(payload, struct.unpack_from("<I", payload, 4)[0])
    print(kind.decode())
    if out:
        keep(out / "payload", payload)
        keep(out / "plain", octets)
    for number, data in rest:
        if number == 1:
            assert data[:2] == b"\0\4", data[:2]
            print("signed by", data[2:18].hex())
            if out:
                keep(out / "signature", data[18:])
                keep(out / "message", kind + data[:18] + hashlib.sha512(payload).digest())
    contents = [data for number, data in rest if number == 2]
    if kind == b"pckg":
        package(payload, root, contents, out)
    else:
        assert kind == b"indx" and not contents
        names = [info[1] for info in root[2].values()]
        assert names == sorted(names)
        for info in root[2].values():
            describe(info)


def split(octets: bytes):
    at = 8
    while at < len(octets):
        (head,) = struct.unpack_from("<I", octets, at)
        number, size = head >> 30, head & 0x3FFFFFFF
        padding = -size % 8
        assert size >= 4 and octets[at + size : at + size + padding] == bytes(padding), at
        yield number, octets[at + 4 : at + size]
        at += size + padding
    assert at == len(octets)


def value(payload: bytes, word: int):
    """Blobs are octets. An object and a list are dicts from the slot's number."""
    kind, low = word >> 28, word & 0xFFFFFFF
    if kind == 0:
        assert low == 0
        return None
    if kind == 1:
        return low
    if kind == 2:
        assert low % 4 == 0
        return struct.unpack_from("<I", payload, low)[0]
    if kind in (8, 9, 10):
        width = 1 << kind - 8
        assert low % width == 0
        length = int.from_bytes(payload[low : low + width], "little")
        assert low + width + length <= len(payload)
        return payload[low + width : low + width + length]
    assert kind in (13, 14) and low % 4 == 0, (kind, low)
    (count,) = struct.unpack_from("<I", payload, low)
    slots = struct.unpack_from(f"<{count - 1}I", payload, low + 4)
    assert slots and slots[-1], "an object ends with an empty slot"
    found = {number: value(payload, slot) for number, slot in enumerate(slots, 1)}
    return {number: content for number, content in found.items() if content is not None}


def package(payload: bytes, root: dict, blocks: list[bytes], out: Path | None) -> None:
    info, paths, scripts = root[1], root[2].values(), root[3]
    assert root.keys() == {1, 2, 3} and len(info[3]) == 20
    zeroed = payload.replace(info[3], bytes(20))
    assert hashlib.sha256(zeroed).digest()[:20] == info[3], "the unique id"
    describe(info)
    assert [path.get(1, b"") for path in paths] == sorted(path.get(1, b"") for path in paths)
    for i, path in enumerate(paths, 1):
        folder = path.get(1, b"").decode()
        print("folder", owner(path[2]), "/" + folder)
        files = path.get(3, {})
        names = [file[1] for file in files.values()]
        assert names == sorted(names)
        for j, file in files.items():
            content = b""
            if file[3]:
                block = blocks.pop(0)
                assert struct.unpack_from("<II", block) == (i, j)
                content = block[8:]
            assert len(content) == file[3] and hashlib.sha256(content).digest() == file[5]
            assert file.keys() == {1, 2, 3, 4, 5}
            name = f"{folder}/{file[1].decode()}"
            print("file", owner(file[2]), file[3], file[4], "/" + name)
            if out:
                keep(out / "root" / name, content)
    assert not blocks
    for number, script in scripts.items():
        print("script", SCRIPTS[number])
        if out:
            keep(out / "scripts" / SCRIPTS[number], script)


def describe(info: dict) -> None:
    for number, field in info.items():
        if number == 15:
            assert all(dependency.keys() == {1} for dependency in field.values())
            print("depends", *(dependency[1].decode() for dependency in field.values()))
        elif isinstance(field, int):
            print(INFO[number], field)
        else:
            print(INFO[number], field.hex() if number == 3 else field.decode())


def owner(acl: dict) -> str:
    return f"{acl[1]:o} {acl[2].decode()} {acl[3].decode()}"


def keep(file: Path, octets: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(octets)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
