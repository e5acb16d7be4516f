"""The command line that cross/ipk and cross/apk share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from package import Package, read_feed
from targets import OUTPUT, ROOT, TARGETS, find


def run(
    description: str,
    pack: Callable[[Package], tuple[str, bytes]],
    index: Callable[[Path, object], None],
    key_kind: Callable[[Path], object],
    key_help: str,
) -> None:
    """Packs for each architecture that the command line names. `pack` returns the name and the
    octets of a package. `index` writes the index of a folder, signed with a key that may be None.
    `key_kind` reads the key."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--binary", type=Path, help="the file to pack, in place of the one that cross/build made"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=OUTPUT / "packages",
        help="the folder of the packages' folders",
    )
    parser.add_argument(
        "--feed",
        type=Path,
        default=ROOT / "openwrt",
        help="the folder of the folders that have the packages' Makefiles",
    )
    parser.add_argument("--key", type=Path, help=key_help)
    parser.add_argument(
        "architectures",
        metavar="ARCHITECTURE",
        nargs="+",
        help="an architecture of OpenWrt, or all",
    )
    arguments = parser.parse_args()
    every = [name for target in TARGETS for name in (target.architecture, *target.also)]
    wanted = every if arguments.architectures == ["all"] else arguments.architectures
    targets = {name: find(name) for name in wanted}
    binaries = {name: arguments.binary or target.file for name, target in targets.items()}
    for name, binary in binaries.items():
        if not binary.is_file():
            sys.exit(f"{binary} is not there; cross/build {targets[name].architecture} makes it")
    key = key_kind(arguments.key) if arguments.key else None
    try:
        for architecture, binary in binaries.items():
            folder = arguments.output / architecture
            folder.mkdir(parents=True, exist_ok=True)
            for package in read_feed(arguments.feed, architecture, binary):
                name, octets = pack(package)
                (folder / name).write_bytes(octets)
                print(folder / name)
            index(folder, key)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
