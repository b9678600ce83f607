"""The language of a word, from nothing: six Debian word lists, a bidirectional GRU over letters, 90 % of it pruned.

python -m examples.classify.run         # docs/results/classify.md shows the figures
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from examples import packages
from examples.whole_path import Example, main

CACHE = Path(".cache/classify")
DATA = CACHE / "words.tsv"
WORDS = 10_000  # of each language, drawn at random
LISTS = {
    "english": (
        "wamerican=2020.12.07-2",
        "c8f8e2b2ad0d37bfdd41f0e40f1e4c8e5f907467d768a1d3698b164e9617f0b4",
        "american-english",
    ),
    "dutch": ("wdutch=1:2.20.19-2", "79dc0dbbd9b3e029ba84423a804c635aca87105521962f9b4c3023399c94dc35", "dutch"),
    "french": ("wfrench=1.2.7-2", "a5cbe63b988adbdb973983aab5b76fe2b715e9a37b012f31ad1e925b1a4b4c29", "french"),
    "german": ("wngerman=20161207-11", "9053a69641bcf59233055f1b3ca341046751534b2b32d1e32c67b23ab9b98fec", "ngerman"),
    "italian": ("witalian=1.10", "dc6eb1423726ce838332936db078406b646d0f3773701a5b1566a68495ddf076", "italian"),
    "spanish": ("wspanish=1.0.30", "a2b7504fb8c12deaf6c4e868f749a3d05a42caee348f0f5bb006238e925cde18", "spanish"),
}


def prepare() -> None:
    """Words of letters alone, in lower case (or capitals would tell German), that stand in one of the lists only."""
    if DATA.exists():
        return
    words = {}
    for language, (package, sha256, name) in LISTS.items():
        path = packages.debian(package, sha256, CACHE) / "usr/share/dict" / name
        lines = path.read_text(encoding="utf-8").split("\n")
        words[language] = sorted({line.lower() for line in lines if line.isalpha() and len(line) > 2})
    lists = Counter(word for listed in words.values() for word in listed)
    with DATA.open("w", encoding="utf-8") as file:
        for language, listed in words.items():
            own = [word for word in listed if lists[word] == 1]
            file.writelines(f"{word}\t{language}\n" for word in random.Random(0).sample(own, WORDS))


EXAMPLES = {
    "classify": Example(
        name="classify",
        checkpoint=".cache/classify/languages-{seed}.pt",
        run=".cache/classify/languages-s90",
        prepare=prepare,
        train="classify --data .cache/classify/words.tsv --level char --cell gru --hidden 128 --embedding 32 "
        "--threads 1 --epochs 3 --batch-size 128 --lr 0.003 --seed {seed}",
        recipe="--epochs 3 --batch-size 128 --lr 0.003 --control-lr 0.0003 --threads 1 --scope model --end 0.4 "
        "--frequency 20",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
