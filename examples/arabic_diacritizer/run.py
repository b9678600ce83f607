"""arabic-diacritizer from nothing: fetched, scored as it came, 90 % of it pruned, exported, run sparse.

python -m examples.arabic_diacritizer.run     # docs/results/arabic_diacritizer.md shows the figures
"""

from __future__ import annotations

from pathlib import Path

from examples import packages
from examples.whole_path import Example, main

CACHE = Path(".cache/arabic_diacritizer")
FILES = {
    "diacritize/assets/bilstm_best.pt": "51bfd0d3498adfc54393580ddc9d7ff8deaaab866d7d5d28c81eaec7ddc9e97f",
    "diacritize/assets/word_cache.json.gz": "752723c1b97c7111bbf6093c8789bfce1cc6f87f2e3de044fba87c6adfecf15f",
}


def prepare() -> None:
    packages.wheel("arabic-diacritizer==1.0.0", FILES, CACHE)


EXAMPLES = {
    "arabic_diacritizer": Example(
        name="arabic_diacritizer",
        checkpoint=".cache/arabic_diacritizer/bilstm_best.pt",
        run=".cache/arabic_diacritizer/diacritizer-s90",
        spec="examples/arabic_diacritizer/diacritics_task.py:make",
        prepare=prepare,
        recipe="--steps 600 --lr 0.002 --control-lr 0.0001 --scope model --end 0.4 --frequency 20 --threads 1",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
