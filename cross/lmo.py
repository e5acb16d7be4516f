"""The translations that LuCI reads (.lmo), compiled from gettext's (.po).

A file holds the texts, each padded with zeros to a multiple of four octets, then an index in the
order of the keys, then the offset of that index. An entry of the index is a key, the number of the
message's forms, and the offset and the length of its text. A key is the hash of
`CONTEXT 0x01 MESSAGE 0x02 FORM`, where a message without context or plural lacks that part. Key 0
has the formula that chooses the form. All numbers are 32 bits in network order."""

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

QUOTED = r'"((?:[^"\\]|\\.)*)"'
KEYWORD = re.compile(rf"(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d)\])? {QUOTED}")
CONTINUED = re.compile(QUOTED)
PLURAL = re.compile(r"(?:^|\\n)Plural-Forms: (.*?)\\n", re.IGNORECASE)
BITS_32 = 0xFFFFFFFF


@dataclass
class Message:
    context: str = ""
    id: str = ""
    plural: str = ""
    forms: dict[int, str] = field(default_factory=dict)

    def keyed(self) -> Iterator[tuple[int, str]]:
        """The key of each form that is translated, and its text."""
        start = f"{self.context}\1{self.id}" if self.context else self.id
        for number, text in sorted(self.forms.items()):
            key = hash_of(f"{start}\2{number}" if self.plural else start)
            # LuCI shows the message itself where it finds no text.
            if text and key != hash_of(text):
                yield key, text


def compile_po(file: Path) -> bytes:
    """The octets of the .lmo for a .po. Ends the program if the file is none, or translates
    nothing: LuCI cannot read an index without an entry."""
    texts, index = b"", []
    for message in messages(file):
        if message.id:
            forms = len(message.forms)
            entries = [(key, forms, text) for key, text in message.keyed()]
        else:
            found = PLURAL.search(message.forms.get(0, ""))
            entries = [(0, 0, found[1])] if found else []
        for key, forms, text in entries:
            octets = text.encode()
            index.append((key, forms, len(texts), len(octets)))
            texts += octets + bytes(-len(octets) % 4)
    if not index:
        sys.exit(f"{file} translates nothing")
    index.sort()
    return b"".join((texts, *(struct.pack(">4I", *entry) for entry in index))) + struct.pack(
        ">I", len(texts)
    )


def messages(file: Path) -> Iterator[Message]:
    message, key = Message(), None
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        sys.exit(f"{file} is not in UTF-8")
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if found := KEYWORD.fullmatch(line):
            keyword, form, text = found.groups()
            # The first keyword of a message. Without a context that is its id.
            if keyword == "msgctxt" or (keyword == "msgid" and message.forms):
                yield message
                message = Message()
            key = (keyword, int(form or 0))
        elif (found := CONTINUED.fullmatch(line)) and key:
            text = found[1]
        else:
            sys.exit(f"{file}:{number}: this is no line of a .po: {line}")
        add(message, *key, unquoted(text))
    yield message


def add(message: Message, keyword: str, form: int, text: str) -> None:
    match keyword:
        case "msgctxt":
            message.context += text
        case "msgid":
            message.id += text
        case "msgid_plural":
            message.plural += text
        case _:
            message.forms[form] = message.forms.get(form, "") + text


def unquoted(text: str) -> str:
    """LuCI keeps every other escape, such as that of a line's end, as it stands in the .po."""
    return re.sub(r'\\(["\\])', r"\1", text)


def hash_of(text: str) -> int:
    """Paul Hsieh's SuperFastHash of the UTF-8 octets, 32 bits, with their number as seed."""
    data = text.encode()
    value = len(data)
    whole = len(data) // 4 * 4
    for low, high in struct.iter_unpack("<HH", data[:whole]):
        value = (value + low) & BITS_32
        value = (value << 16 ^ high << 11 ^ value) & BITS_32
        value = (value + (value >> 11)) & BITS_32
    rest = data[whole:]
    if len(rest) == 3:
        value = (value + int.from_bytes(rest[:2], "little")) & BITS_32
        value ^= value << 16 & BITS_32
        value ^= signed(rest[2]) << 18 & BITS_32
        value += value >> 11
    elif len(rest) == 2:
        value = (value + int.from_bytes(rest, "little")) & BITS_32
        value ^= value << 11 & BITS_32
        value += value >> 17
    elif len(rest) == 1:
        value = (value + signed(rest[0])) & BITS_32
        value ^= value << 10 & BITS_32
        value += value >> 1
    value &= BITS_32
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value ^= value << left & BITS_32
        value = (value + (value >> right)) & BITS_32
    return value


def signed(octet: int) -> int:
    return octet - 256 if octet > 127 else octet
