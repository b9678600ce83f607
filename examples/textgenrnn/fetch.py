"""Fetch textgenrnn's trained weights and Debian's fortunes, as the packages that ship them.

Usage: python examples/textgenrnn/fetch.py [FOLDER]      (default: .cache/textgenrnn; needs apt-get and dpkg-deb)

textgenrnn is on the index as source only, and pip asks a source archive for its metadata by running its setup.py, even
to download it. So a stand-in takes the place of setuptools there and answers at once: nothing of the package ever runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CACHE = Path(".cache/textgenrnn")
NAME, VERSION = "textgenrnn", "2.0.0"
MEMBERS = {
    "textgenrnn_weights.hdf5": "6a89ca4235ed9f00be7b2acd65d5fe4a099967d676bfe20afb696106286ffbca",
    "textgenrnn_vocab.json": "f9c6c0db9b07fb57da023d32df66e16a488d086c138e15706307bb5177c2be74",
}
STAND_IN = f"""
from pathlib import Path

class __legacy__:  # what pip calls for an archive without pyproject.toml
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        info = Path(folder, "{NAME}-{VERSION}.dist-info")
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n")
        return info.name
"""
DEBIAN = ("fortunes-min", "fortunes")
FORTUNES = "fortunes.txt"
FORTUNES_SHA256 = "b9b8089b4d0a0a61d05fd22da65856b7103072b2bbecb2416da41298edbee760"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_present(folder: Path, name: str, digest: str) -> bool:
    file = folder / name
    return file.is_file() and sha256(file.read_bytes()) == digest


def run(command: list[str], problem: str, **options: object) -> None:
    try:
        failed = subprocess.run(command, check=False, **options).returncode != 0  # type: ignore[call-overload]
    except FileNotFoundError:
        sys.exit(f"fetch: there is no {command[0]} here; {problem}")
    if failed:
        sys.exit(f"fetch: {problem} (the message of {command[0]} is above)")


def download_archive(folder: Path) -> Path:
    """The source archive, through pip and whatever index it is set up with."""
    backend = folder / "stand_in" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(STAND_IN, encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary=:all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--use-pep517", "--no-build-isolation"]
    environment = os.environ | {"PYTHONPATH": str(backend.parent)}
    run([*command, f"{NAME}=={VERSION}"], f"pip could not download {NAME} {VERSION}", env=environment)
    return next(folder.glob("*.tar.gz"))


def fetch_weights(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(download_archive(Path(scratch))) as archive:
        for name, digest in MEMBERS.items():
            member = archive.extractfile(f"{NAME}-{VERSION}/{NAME}/{name}")
            content = member.read() if member else b""
            if sha256(content) != digest:
                sys.exit(f"fetch: {name} of {NAME} {VERSION} does not have sha256 {digest}; not written.")
            (folder / name).write_bytes(content)


def fetch_fortunes(folder: Path) -> None:
    """Every file of fortunes, one after the other: texts with lines `%` between them."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        run(["apt-get", "download", "-qq", *DEBIAN], "apt-get could not download fortunes", cwd=scratch)
        for package in sorted(scratch.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(scratch)], f"dpkg-deb could not unpack {package.name}")
        files = sorted(f for f in (scratch / "usr/share/games/fortunes").iterdir() if not f.suffix and f.is_file())
        content = b"%\n".join(file.read_bytes() for file in files)
    if sha256(content) != FORTUNES_SHA256:
        print("fetch: these are not the fortunes of 1:1.99.1-7.3: figures will differ a little", file=sys.stderr)
    (folder / FORTUNES).write_bytes(content)


def fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not all(is_present(folder, *member) for member in MEMBERS.items()):
        fetch_weights(folder)
    if not is_present(folder, FORTUNES, FORTUNES_SHA256):
        fetch_fortunes(folder)


if __name__ == "__main__":
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE
    fetch(cache)
    print(f"{cache}: {', '.join([*MEMBERS, FORTUNES])}")
