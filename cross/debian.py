"""Debian's packages, unpacked into a folder. Leaves this machine's own package lists alone."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def run(*command: str | Path, **options) -> str:
    """Runs a command and returns its output. If it fails, exits with the last lines of that."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", **options)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        sys.exit(f"{shlex.join(map(str, command))} failed:\n{tail}")
    return done.stdout


class Apt:
    """The packages of a release for an architecture. Keeps its lists in a folder that does not
    exist yet."""

    def __init__(self, folder: Path, release: str, architecture: str):
        self.archives = folder / "cache/archives"
        self.environment = {
            **os.environ,
            "APT_CONFIG": str(folder / "apt.conf"),
            "LC_ALL": "C.UTF-8",
        }
        # The mirrors in this machine's sources that hold Debian itself.
        uris = run(
            "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"
        ).split()
        mirrors = sorted({uri for uri in uris if uri.rstrip("/").endswith("/debian")})
        if not mirrors:
            sys.exit("apt's sources name no mirror of Debian (a URI that ends in /debian)")
        for name in ("etc", "state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "etc/sources.list").write_text(
            "".join(
                f"{kind} [signed-by={KEYRING}] {uri} {release} main\n"
                for uri in mirrors
                for kind in ("deb", "deb-src")
            )
        )
        (folder / "apt.conf").write_text(
            run("apt-config", "dump", "Acquire::http", "Acquire::https")  # perhaps with a proxy
            + f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n'
            + f'APT::Sandbox::User "{run("id", "-un").strip()}";\nAcquire::Languages "none";\n'
            + f'Dir::Etc "{folder}/etc";\nDir::State "{folder}/state";\n'
            + f'Dir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        )
        run("apt-get", "update", "--error-on=any", env=self.environment)

    def newest(self, package: str) -> str:
        """The package of the newest version, on which this package depends."""
        return re.search(
            r"Depends: (\S+)", run("apt-cache", "depends", package, env=self.environment)
        ).group(1)

    def unpack(self, packages: tuple[str, ...], folder: Path) -> None:
        with tempfile.TemporaryDirectory() as downloads:
            run("apt-get", "download", *packages, env=self.environment, cwd=downloads)
            for package in Path(downloads).glob("*.deb"):
                run("dpkg-deb", "-x", package, folder)

    def unpack_with_dependencies(self, packages: tuple[str, ...], folder: Path) -> None:
        """Unpacks packages and all that they depend on: no package counts as installed."""
        run(
            *("apt-get", "install", "--yes", "--download-only", "--no-install-recommends"),
            *packages,
            env=self.environment,
        )
        for package in self.archives.glob("*.deb"):
            run("dpkg-deb", "-x", package, folder)

    def source(self, package: str, folder: Path) -> Path:
        """Unpacks a package's source into a folder, and returns the source's own folder there."""
        run("apt-get", "source", "--download-only", package, env=self.environment, cwd=folder)
        return unpack(next(folder.glob("*.orig.tar.*")), folder)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks an archive into a folder, and returns the archive's top folder there."""
    with tarfile.open(archive) as file:
        file.extractall(folder)
        return folder / file.getnames()[0].split("/")[0]
