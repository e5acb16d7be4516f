"""What the packages for OpenWrt hold, read from the folders of the feed: files, fields, scripts."""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lmo

# The modes that the feed's commands give to a file.
MODES = {"$(INSTALL_BIN)": 0o755, "$(INSTALL_CONF)": 0o600, "$(INSTALL_DATA)": 0o644}
# The start of each script in OpenWrt's own packages.
SCRIPT_START = """#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0
. "${IPKG_INSTROOT}/lib/functions.sh"
"""
# LuCI's build adds this to each application, so that its page is found without a restart.
LUCI_POSTINST = """[ -n "${IPKG_INSTROOT}" ] || {
	rm -f /tmp/luci-indexcache.*
	rm -rf /tmp/luci-modulecache/
	[ ! -x /etc/init.d/rpcd ] || /etc/init.d/rpcd reload
}
"""
# The name of each language that a LuCI page may be translated to, as LuCI's menu shows it.
LANGUAGES = {"ja": "日本語 (Japanese)"}


@dataclass(frozen=True)
class File:
    path: str  # on the router, without a leading slash
    content: bytes
    mode: int  # the permission bits; the owner is root


@dataclass(frozen=True)
class Package:
    name: str
    version: str  # with the release, such as 1.2.0-r1
    architecture: str  # OpenWrt's name, or all
    license: str  # an SPDX expression
    section: str
    maintainer: str
    url: str
    description: str  # on one line
    source: str  # the folder that it was made from
    depends: tuple[str, ...]  # names of packages
    files: tuple[File, ...]  # in the order of their paths
    conffiles: tuple[str, ...]  # paths with a leading slash
    postinst: str  # what it does after its installation besides OpenWrt's default
    prerm: str  # the same before its removal

    @property
    def folders(self) -> list[str]:
        """The path of each folder above a file, but for the root's, in order."""
        above = {str(parent) for file in self.files for parent in Path(file.path).parents}
        return sorted(above - {"."}, key=str.encode)

    @property
    def installed_size(self) -> int:
        """The octets of all files."""
        return sum(len(file.content) for file in self.files)


def read_feed(feed: Path, architecture: str, binary: Path) -> list[Package]:
    """The packages of a feed for a router of this architecture. `binary` stands for the program
    that the feed's Makefile would build."""
    makefiles = sorted(feed.glob("*/Makefile"))
    if not makefiles:
        sys.exit(f"{feed} holds no folder with a Makefile")
    packages = []
    for makefile in map(Makefile, makefiles):
        if makefile.is_luci:
            packages += luci(makefile)
        else:
            packages.append(ordinary(makefile, architecture, binary))
    return packages


class Makefile:
    """The Makefile of a package. It is read as far as the feed's Makefiles go, and anything else
    ends the program."""

    def __init__(self, file: Path):
        self.file, self.folder = file, file.parent
        self.text = file.read_text()
        self.text = re.sub(r"\$\((\w+)\)", self.expanded, self.text)
        self.name = self.value("PKG_NAME") or self.folder.name
        self.is_luci = bool(re.search(r"^include .*/luci\.mk\s*$", self.text, re.MULTILINE))

    def expanded(self, reference: re.Match) -> str:
        """The value of `$(NAME)`, or the reference itself if the Makefile sets no such name."""
        return self.value(reference[1]) or reference[0]

    def value(self, name: str) -> str:
        """The value of `NAME:=value`, or nothing."""
        found = re.search(rf"^[ \t]*{name}[ \t]*[:?]?=((?:\\\n|.)*)$", self.text, re.MULTILINE)
        return " ".join(found[1].replace("\\\n", " ").split()) if found else ""

    def definition(self, name: str) -> str:
        """The lines between `define Package/PACKAGE/NAME` and `endef`, or nothing."""
        found = re.search(
            rf"^define Package/{re.escape(self.name)}/{name}\n(.*?)^endef",
            self.text,
            re.MULTILINE | re.DOTALL,
        )
        return found[1] if found else ""

    def script(self, name: str) -> str:
        """The lines of a script. In a Makefile two dollars stand for one."""
        return re.sub(r"^\s*#!.*\n", "", self.definition(name).replace("$$", "$"))

    def refuse(self, reason: str) -> None:
        sys.exit(f"{self.file}: {reason}")

    def version(self) -> str:
        if not re.fullmatch(r"\d+(\.\d+)*", self.value("PKG_VERSION")):
            self.refuse("PKG_VERSION has to be numbers with dots between them")
        return f"{self.value('PKG_VERSION')}-r{self.value('PKG_RELEASE') or 1}"

    def depends(self, name: str) -> tuple[str, ...]:
        """The packages that must be there. The other conditions are those of a build."""
        words = [word for word in self.value(name).split() if not word.startswith(("@", "$("))]
        for word in words:
            if ":" in word:
                self.refuse(f"the dependency {word} depends on a build's configuration")
        return tuple(word.removeprefix("+") for word in words)

    def installed(self, binary: Path) -> Iterator[File]:
        """The files that the commands of `install` put in place. A folder without any is left
        out."""
        folders = set()
        for line in self.definition("install").replace("\\\n", " ").splitlines():
            command, *words = line.split() or [""]
            if command == "$(INSTALL_DIR)":
                folders |= {word.removeprefix("$(1)/") for word in words}
            elif command in MODES and len(words) > 1 and words[-1].startswith("$(1)/"):
                *sources, to = words
                to = to.removeprefix("$(1)/")
                for source in sources:
                    file = self.found(source, binary)
                    name = Path(source).name
                    path = f"{to.rstrip('/')}/{name}" if to[-1:] == "/" or to in folders else to
                    yield File(path, file.read_bytes(), MODES[command])
            elif command:
                self.refuse(f"the packer cannot carry out `{line.strip()}`")

    def found(self, name: str, binary: Path) -> Path:
        """The file that a command of `install` names."""
        file = binary if name.startswith("$(PKG_INSTALL_DIR)/") else self.folder / name
        if not file.is_file():
            self.refuse(f"{file} is not there")
        return file


def ordinary(makefile: Makefile, architecture: str, binary: Path) -> Package:
    return build(
        makefile,
        architecture="all" if makefile.value("PKGARCH") == "all" else architecture,
        section=makefile.value("SECTION"),
        maintainer=makefile.value("PKG_MAINTAINER"),
        url=makefile.value("URL"),
        description=makefile.definition("description") or makefile.value("TITLE"),
        depends=makefile.depends("DEPENDS"),
        files=makefile.installed(binary),
        postinst=makefile.script("postinst"),
    )


def luci(makefile: Makefile) -> Iterator[Package]:
    """A LuCI application, as LuCI's luci.mk makes it but for minified scripts, and a package for
    each language in `po`."""
    fields = {
        "architecture": "all",
        "section": "luci",
        "maintainer": makefile.value("LUCI_MAINTAINER") or makefile.value("PKG_MAINTAINER"),
        "url": makefile.value("LUCI_URL") or makefile.value("URL"),
    }
    yield build(
        makefile,
        **fields,
        description=makefile.value("LUCI_DESCRIPTION") or makefile.value("LUCI_TITLE"),
        depends=makefile.depends("LUCI_DEPENDS"),
        files=[
            File(f"{to}{file.relative_to(makefile.folder / base)}", file.read_bytes(), mode(file))
            for base, to in (("htdocs", "www/"), ("root", ""))
            for file in (makefile.folder / base).rglob("*")
            if file.is_file()
        ],
        postinst=makefile.script("postinst") or LUCI_POSTINST,
    )
    short = makefile.name.removeprefix("luci-app-")
    for folder in sorted(makefile.folder.glob("po/*")):
        language = folder.name
        if language == "templates":
            continue
        if language not in LANGUAGES:
            makefile.refuse(f"{Path(__file__).name} lacks the name of the language {language}")
        name = f"luci-i18n-{short}-{language}"
        # OpenWrt runs this once, after the installation.
        menu = f"uci set luci.languages.{language}='{LANGUAGES[language]}'; uci commit luci\n"
        files = [File(f"etc/uci-defaults/{name}", menu.encode(), 0o644)]
        for po in folder.glob("*.po"):
            path = f"usr/lib/lua/luci/i18n/{po.stem}.{language}.lmo"
            files.append(File(path, lmo.compile_po(po), 0o644))
        yield build(
            makefile,
            **fields,
            name=name,
            description=f"Translation for {makefile.name} - {LANGUAGES[language]}",
            depends=(makefile.name,),
            files=files,
            postinst="",
        )


def mode(file: Path) -> int:
    """The mode of a file in a repository, which keeps one bit of it."""
    return 0o755 if file.stat().st_mode & 0o100 else 0o644


def build(
    makefile: Makefile, *, description: str, files: Iterable[File], name: str = "", **fields
) -> Package:
    """A package with the fields that all packages of a Makefile have. The package that is not
    named is the Makefile's own, with its conffiles and what it does before its removal."""
    files = list(files)
    conffiles = () if name else tuple(makefile.definition("conffiles").split())
    # sysupgrade keeps what these lists name besides the packages' own conffiles.
    kept = [path for path in conffiles if path[1:] not in {file.path for file in files}]
    if kept:
        content = "".join(f"{path}\n" for path in kept).encode()
        files.append(File(f"lib/upgrade/keep.d/{makefile.name}", content, 0o644))
    return Package(
        name=name or makefile.name,
        version=makefile.version(),
        license=makefile.value("PKG_LICENSE"),
        description=" ".join(description.split()),
        source=f"{makefile.folder.parent.name}/{makefile.folder.name}",
        files=in_order(files),
        conffiles=conffiles,
        prerm="" if name else makefile.script("prerm"),
        **fields,
    )


def in_order(files: Iterable[File]) -> tuple[File, ...]:
    """The files in the order of their paths' octets."""
    return tuple(sorted(files, key=lambda file: file.path.encode()))
