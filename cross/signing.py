"""The keys of a feed: an EC key for apk, by openssl, and a signify key for opkg, by signify."""

import base64
import binascii
import hashlib
import subprocess
import sys
from pathlib import Path

# The start of the DER of every public key of the curve prime256v1, up to the point itself.
PRIME256V1 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
SIGNIFY_OCTETS = 104  # of a secret key: Ed, BK, 4 of rounds, 16, 8 and 8, and 64 of the key
SIGNIFY_START = b"EdBK" + bytes(4)  # no rounds, since it has no passphrase


def run(program: str, package: str, *arguments: str | Path, data: bytes = b"") -> bytes | None:
    """The output of a program, or None if it fails. Ends this program if that one is missing."""
    try:
        done = subprocess.run([program, *arguments], input=data, capture_output=True)
    except FileNotFoundError:
        sys.exit(f"{program} is missing: install the Debian package {package}")
    return None if done.returncode else done.stdout


def read(file: Path, remedy: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        sys.exit(f"the key {file} cannot be read: {error.strerror}; {remedy}")


class ApkKey:
    """A secret key with which apk's indexes are signed. Ends the program if the file is none."""

    def __init__(self, file: Path):
        self.file = file
        remedy = "`openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem` makes one"
        read(file, remedy)
        public = self.openssl("pkey", "-in", file, "-pubout", "-outform", "DER") or b""
        if not public.startswith(PRIME256V1):
            sys.exit(
                f"{file} is no secret EC key of the curve prime256v1 without passphrase; {remedy}"
            )
        # 16 octets that name the key.
        self.identifier = hashlib.sha512(public[len(PRIME256V1) :]).digest()[:16]

    def sign(self, message: bytes) -> bytes:
        """The ECDSA signature with SHA-512, which differs each time."""
        signature = self.openssl("dgst", "-sha512", "-sign", self.file, data=message)
        if not signature:
            sys.exit(f"openssl could not sign with {self.file}")
        return signature

    def public(self) -> tuple[str, bytes]:
        """The public key as a router has it: its name below /etc/apk/keys, and its octets."""
        octets = self.openssl("pkey", "-in", self.file, "-pubout")
        if not octets:
            sys.exit(f"openssl could not read {self.file}")
        return "mldproxy.pem", octets

    def openssl(self, command: str, *arguments: str | Path, data: bytes = b"") -> bytes | None:
        no_question = ("-passin", "pass:")
        return run("openssl", "openssl", command, *no_question, *arguments, data=data)


class OpkgKey:
    """A secret key of signify or usign, with which opkg's indexes are signed. Ends the program if
    the file is none."""

    def __init__(self, file: Path):
        self.file = file
        remedy = "`signify-openbsd -G -n -p KEY.pub -s KEY.sec` makes one"
        lines = read(file, remedy).split(b"\n")
        try:
            key = base64.b64decode(lines[1], validate=True)
        except (IndexError, binascii.Error):
            key = b""
        if len(key) != SIGNIFY_OCTETS or not key.startswith(SIGNIFY_START):
            sys.exit(f"{file} is no secret key of signify without passphrase; {remedy}")
        self.octets = key

    def public(self) -> tuple[str, bytes]:
        """The public key as a router has it: its name below /etc/opkg/keys, which is the number of
        the key, and its octets."""
        # Ed, BK, 4 octets of rounds, 16 of salt and 8 of a checksum come before the number.
        number, key = self.octets[32:40], self.octets[40:]
        # The second half of an Ed25519 secret key is the public one.
        public = base64.b64encode(b"Ed" + number + key[32:])
        return number.hex(), b"untrusted comment: mldproxy feed\n" + public + b"\n"

    def sign(self, file: Path) -> None:
        """Writes the signature beside the file, with `.sig` behind its name."""
        signature = file.with_name(f"{file.name}.sig")
        arguments = ("-S", "-s", self.file, "-m", file, "-x", signature)
        if run("signify-openbsd", "signify-openbsd", *arguments) is None:
            sys.exit(f"signify-openbsd could not sign with {self.file}")
