"""The files of apk-tools 3: packages (.apk) and indexes (packages.adb), written and read.

A file is a container, plain or deflated: `ADB.`, the kind of document, and blocks. The first block
holds the document, a tree of values. A package's content follows in a block for each file. All
numbers are little-endian. Values are Python's own here: int, bytes, list, and dict for an object,
from the name of a field to its value. An absent field is not in the dict."""

import hashlib
import struct
import zlib
from dataclasses import dataclass

PACKAGE, INDEX = b"pckg", b"indx"

# The fields of each kind of object, in the order of their numbers, which begin at 1. A field
# without a name is of no use here. Behind a colon stands the kind of an object, or of each element
# of a list.
SCHEMAS = {
    "pckg": "info:info paths:[path scripts:scripts triggers replaces-priority",
    "indx": "description packages:[info pkgname-spec",
    "info": "name version hash description arch license origin maintainer url repo-commit "
    "build-time installed-size file-size provider-priority depends:[dependency "
    "provides:[dependency replaces:[dependency install-if:[dependency recommends:[dependency "
    "layer tags:[text",
    "dependency": "name version match",
    "path": "name acl:acl files:[file",
    "file": "name acl:acl size mtime hash target",
    "acl": "mode user group xattrs",
    "scripts": "trigger pre-install post-install pre-deinstall post-deinstall pre-upgrade "
    "post-upgrade",
}
FIELDS = {
    kind: [tuple((field + ":").split(":")[:2]) for field in fields.split()]
    for kind, fields in SCHEMAS.items()
}

# The types of a value: its upper four bits.
SMALL, NUMBER_32, NUMBER_64, BLOB_8, BLOB_16, BLOB_32, ARRAY, OBJECT = 1, 2, 3, 8, 9, 10, 13, 14
ROOM = 1 << 28  # what the other bits hold
DOCUMENT_BLOCK, SIGNATURE_BLOCK, CONTENT_BLOCK = 0, 1, 2
BLOCK_ROOM = 1 << 30
IDENTITY_OCTETS = 20  # of a package's unique id
SHA512 = 4  # the number of that hash in a signature


class Malformed(Exception):
    """Some octets are no file of apk-tools 3, or are damaged. The text says in what way."""


class Writer:
    """Builds the payload of a document's block. Equal data are stored once."""

    def __init__(self) -> None:
        self.octets = bytearray(8)  # two versions (0), two octets of padding, the root value
        self.stored: dict[tuple[int, bytes], int] = {}

    def place(self, data: bytes, alignment: int) -> int:
        """The offset of these data, which are added unless they are there already."""
        offset = self.stored.get((alignment, data))
        if offset is None:
            self.octets += bytes(-len(self.octets) % alignment)
            offset = self.stored[alignment, data] = len(self.octets)
            self.octets += data
        return offset

    def value(self, value: int | bytes | list | dict, kind: str) -> int:
        """The 32 bits that stand for a value."""
        if isinstance(value, int):
            if value < ROOM:
                return SMALL << 28 | value
            return NUMBER_32 << 28 | self.place(struct.pack("<I", value), 4)
        if isinstance(value, bytes):
            return self.blob(value)
        if isinstance(value, list):
            return self.slots([self.value(item, kind.removeprefix("[")) for item in value])
        unknown = value.keys() - {name for name, _ in FIELDS[kind]}
        if unknown:
            raise ValueError(f"{kind} has no field {', '.join(sorted(unknown))}")
        return self.slots(
            [self.value(value[name], inner) if name in value else 0 for name, inner in FIELDS[kind]]
        )

    def blob(self, data: bytes) -> int:
        if not data:
            return 0
        for kind, pack, alignment in ((BLOB_8, "<B", 1), (BLOB_16, "<H", 2), (BLOB_32, "<I", 4)):
            if len(data) < 1 << 8 * alignment:
                return kind << 28 | self.place(struct.pack(pack, len(data)) + data, alignment)
        raise ValueError("a value is larger than 4 GiB")

    def slots(self, values: list[int]) -> int:
        """A list or an object: the number of its slots, this one included, and their values. apk
        gives both the same type."""
        while values and not values[-1]:
            values.pop()
        if not values:
            return 0
        size = len(values) + 1
        return OBJECT << 28 | self.place(struct.pack(f"<{size}I", size, *values), 4)

    def document(self, root: dict, kind: bytes) -> bytes:
        struct.pack_into("<I", self.octets, 4, self.value(root, kind.decode()))
        return bytes(self.octets)


def document(root: dict, kind: bytes) -> bytes:
    """The payload of a document's block."""
    return Writer().document(root, kind)


def package(root: dict) -> bytes:
    """The payload of a package's document. Fills in its unique id: the hash of the payload with
    zeros in the id's place."""
    # No hash consists of ones, so that this value is not shared and is found again.
    mark = b"\xff" * IDENTITY_OCTETS
    payload = document({**root, "info": {**root["info"], "hash": mark}}, PACKAGE)
    zeroed = payload.replace(mark, bytes(IDENTITY_OCTETS), 1)
    return payload.replace(mark, hashlib.sha256(zeroed).digest()[:IDENTITY_OCTETS], 1)


def container(
    kind: bytes, payload: bytes, contents: list[tuple[int, int, bytes]], signatures: list[bytes]
) -> bytes:
    """The octets of a file, deflated if that is smaller. The contents are those of a package's
    files, each behind the number of its path and of the file in it, both from 1."""
    blocks = [(DOCUMENT_BLOCK, payload)]
    blocks += [(SIGNATURE_BLOCK, signature) for signature in signatures]
    blocks += [
        (CONTENT_BLOCK, struct.pack("<II", path, file) + content)
        for path, file, content in contents
    ]
    plain = b"ADB." + kind
    for number, data in blocks:
        size = 4 + len(data)
        if size >= BLOCK_ROOM:
            raise ValueError("a block is larger than 1 GiB")
        plain += struct.pack("<I", number << 30 | size) + data + bytes(-size % 8)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = b"ADBd" + deflater.compress(plain) + deflater.flush()
    return min(plain, deflated, key=len)


def signed_message(kind: bytes, payload: bytes, identifier: bytes) -> bytes:
    """The octets over which a key with this identifier signs, by SHA-512."""
    return kind + signature_head(identifier) + hashlib.sha512(payload).digest()


def signature_head(identifier: bytes) -> bytes:
    """The start of a signature's block: the version, the hash, and 16 octets that name the key."""
    return bytes((0, SHA512)) + identifier


@dataclass(frozen=True)
class Document:
    """A file that was read. Every hash in it holds; its signatures are not checked."""

    kind: bytes
    root: dict
    payload: bytes
    signatures: tuple[tuple[bytes, bytes], ...]  # the key's identifier and its signature
    contents: dict[str, bytes]  # by the path in the package, without a leading slash


def read(octets: bytes) -> Document:
    """Reads a package or an index and checks its hashes. Raises Malformed."""
    try:
        return parse(octets)
    except (
        *(struct.error, zlib.error, LookupError, RecursionError),
        *(AttributeError, TypeError, ValueError),
    ) as error:
        raise Malformed(f"it is damaged ({error})") from error


def parse(octets: bytes) -> Document:
    if octets[:4] == b"ADBd":
        octets = zlib.decompress(octets[4:], -15)
    if octets[:4] != b"ADB.":
        raise Malformed("it does not begin as a file of apk-tools 3 does")
    kind = octets[4:8]
    if kind not in (PACKAGE, INDEX):
        raise Malformed(f"it holds neither a package nor an index, but {kind!r}")
    blocks = list(split(octets))
    if not blocks or [number for number, _ in blocks].count(DOCUMENT_BLOCK) != 1 or blocks[0][0]:
        raise Malformed("its first block, and no other, has to be the document")
    payload = blocks[0][1]
    (root,) = struct.unpack_from("<I", payload, 4)
    root = decode(payload, root, kind.decode())
    signatures = []
    for number, data in blocks:
        if number == SIGNATURE_BLOCK:
            if data[:2] != signature_head(b"") or len(data) <= 18:
                raise Malformed("a signature is of an unknown kind")
            signatures.append((data[2:18], data[18:]))
    contents = {}
    if kind == PACKAGE:
        check_identity(payload, root["info"]["hash"])
        contents = checked(root, [data for number, data in blocks if number == CONTENT_BLOCK])
    return Document(kind, root, payload, tuple(signatures), contents)


def split(octets: bytes):
    """Each block's number and data."""
    at = 8
    while at < len(octets):
        (head,) = struct.unpack_from("<I", octets, at)
        number, size = head >> 30, head % BLOCK_ROOM
        if number > CONTENT_BLOCK or size < 4 or at + size > len(octets):
            raise Malformed(f"the block at offset {at} is of an unknown kind, or cut off")
        yield number, octets[at + 4 : at + size]
        at += size + -size % 8


def decode(payload: bytes, value: int, kind: str) -> int | bytes | list | dict | None:
    """What a value stands for; None for an absent one."""
    number, offset = value >> 28, value % ROOM
    if number == 0 and offset == 0:
        return None
    if number == SMALL:
        return offset
    for scalar, pack in ((NUMBER_32, "<I"), (NUMBER_64, "<Q")):
        if number == scalar:
            return struct.unpack_from(pack, payload, offset)[0]
    for blob, pack, size in ((BLOB_8, "<B", 1), (BLOB_16, "<H", 2), (BLOB_32, "<I", 4)):
        if number == blob:
            (length,) = struct.unpack_from(pack, payload, offset)
            data = payload[offset + size : offset + size + length]
            if len(data) != length:
                raise Malformed("a value is cut off")
            return data
    if number not in (ARRAY, OBJECT):
        raise Malformed(f"a value is of the unknown type {number}")
    (count,) = struct.unpack_from("<I", payload, offset)
    if count == 0 or offset + 4 * count > len(payload):
        raise Malformed("a list is cut off")
    slots = struct.unpack_from(f"<{count - 1}I", payload, offset + 4)
    if kind.startswith("["):
        return [decode(payload, slot, kind.removeprefix("[")) for slot in slots]
    decoded = (
        (name, decode(payload, slot, inner)) for slot, (name, inner) in zip(slots, FIELDS[kind])
    )
    return {name: value for name, value in decoded if value is not None}


def check_identity(payload: bytes, identity: bytes) -> None:
    zeroed = payload.replace(identity, bytes(len(identity)), 1)
    if hashlib.sha256(zeroed).digest()[: len(identity)] != identity:
        raise Malformed("its unique id is not the hash of the package")


def checked(root: dict, blocks: list[bytes]) -> dict[str, bytes]:
    """The content of each file of a package, whose sizes and hashes are checked."""
    given = {struct.unpack_from("<II", block): block[8:] for block in blocks}
    found = {}
    for i, path in enumerate(root.get("paths", []), 1):
        folder = path.get("name", b"").decode()
        for j, file in enumerate(path.get("files", []), 1):
            if "target" in file:
                continue
            name = f"{folder}/{file['name'].decode()}".lstrip("/")
            content = given.pop((i, j), b"")
            hash_is = hashlib.sha256(content).digest()
            if file["size"] != len(content) or file["hash"] != hash_is:
                raise Malformed(f"the content of {name} is not what its hash says")
            found[name] = content
    if given:
        raise Malformed("it has the content of a file that it does not list")
    return found


def describe(octets: bytes) -> dict:
    """What an index says of a package, from the package's octets. Raises Malformed."""
    found = read(octets)
    if found.kind != PACKAGE:
        raise Malformed("it is an index")
    hash_is = hashlib.sha256(found.payload).digest()
    return {**found.root["info"], "hash": hash_is, "file-size": len(octets)}
