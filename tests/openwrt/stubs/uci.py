"""Stands in for OpenWrt's uci, and keeps what is committed (etc/config) apart from what is staged
(tmp/.uci), both below the folder above the program's own. A staged line is a command:
`set PACKAGE.SECTION.OPTION=VALUE`. libuci's format differs, and so only this program reads it."""

import re
import shlex
import sys
from pathlib import Path

ROOT = Path(sys.argv[0]).absolute().parent.parent
COMMITTED, STAGED = ROOT / "etc/config", ROOT / "tmp/.uci"


class Missing(Exception):
    """What was named is not there: uci fails without a change."""


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def load(package: str) -> dict:
    """Section name to its options; the type is the option of the name ''."""
    if not (COMMITTED / package).exists():
        raise Missing
    sections, options = {}, None
    for line in read(COMMITTED / package):
        match shlex.split(line, comments=True):
            case ["config", kind, *name]:
                options = sections[name[0] if name else f"cfg{len(sections):02x}"] = {"": kind}
            case ["option", name, value]:
                options[name] = value
            case ["list", name, value]:
                options.setdefault(name, []).append(value)
    for line in read(STAGED / package):
        apply(sections, *line.split(" ", 1))
    return sections


def split(sections: dict, path: str) -> tuple[str, str]:
    """The name of the section of PACKAGE.SECTION[.OPTION], and the option or ''."""
    _, section, *option = re.findall(r"@\w+\[\d+\]|[^.]+", path)
    if found := re.fullmatch(r"@(\w+)\[(\d+)\]", section):
        names = [name for name, options in sections.items() if options[""] == found[1]]
        section = names[int(found[2])] if int(found[2]) < len(names) else ""
    return section, ".".join(option)


def apply(sections: dict, command: str, argument: str) -> None:
    path, _, value = argument.partition("=")
    section, option = split(sections, path)
    if section not in sections and (option or command != "set"):
        raise Missing
    options = sections.setdefault(section, {})
    before = options.get(option)
    several = [] if before is None else before if isinstance(before, list) else [before]
    match command:
        case "set":
            options[option] = value
        case "add_list":
            options[option] = [*several, value]
        case "del_list":
            options[option] = [each for each in several if each != value]
        case "delete" if option:
            if options.pop(option, None) is None:
                raise Missing
        case "delete":
            del sections[section]
    if options.get(option) == []:
        del options[option]


def export(sections: dict) -> str:
    lines = []
    for name, options in sections.items():
        lines.append(f"config {options['']} {shlex.quote(name)}")
        for option, value in options.items():
            if option:
                word = "list" if isinstance(value, list) else "option"
                for each in value if isinstance(value, list) else [value]:
                    lines.append(f"\t{word} {option} {shlex.quote(each)}")
    return "".join(f"{line}\n" for line in lines)


def matches(line: str, path: str) -> bool:
    """Whether a staged line is about PACKAGE[.SECTION[.OPTION]]."""
    about = line.split(" ", 1)[1].partition("=")[0]
    return about == path or about.startswith(f"{path}.")


def run(command: str, argument: str) -> None:
    package = re.split(r"[.=]", argument)[0]
    sections = load(package)
    match command:
        case "get":
            section, option = split(sections, argument)
            value = sections.get(section, {}).get(option)
            if value is None:
                raise Missing
            print(" ".join(value) if isinstance(value, list) else value)
        case "export":
            print(export(sections), end="")
        case "changes":
            print("".join(f"{line}\n" for line in read(STAGED / package)), end="")
        case "revert":
            STAGED.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read(STAGED / package) if not matches(line, argument)]
            (STAGED / package).write_text("".join(f"{line}\n" for line in kept))
        case "commit":
            (COMMITTED / package).write_text(export(sections))
            (STAGED / package).unlink(missing_ok=True)
        case _:
            apply(sections, command, argument)
            STAGED.mkdir(parents=True, exist_ok=True)
            with (STAGED / package).open("a") as staged:
                staged.write(f"{command} {argument}\n")


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "-q"]
    status = 0
    if words == ["batch"]:
        commands = [line.strip().split(" ", 1) for line in sys.stdin if line.strip()]
    else:
        commands = [words]
    for command in commands:
        try:
            run(*command)
        except Missing:
            status = 1
    return status


sys.exit(main())
