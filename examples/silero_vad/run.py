"""silero-vad from nothing: fetched, scored as it came, 90 % of its LSTM cell pruned, exported, run sparse.

python -m examples.silero_vad.run       # docs/results/silero_vad.md shows the figures
"""

from __future__ import annotations

from pathlib import Path

from examples import packages
from examples.whole_path import Example, main

CACHE = Path(".cache/silero_vad")
WEIGHTS = {
    "silero_vad/data/silero_vad_16k.safetensors": "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1"
}


def prepare() -> None:
    packages.wheel("silero-vad==6.2.3", WEIGHTS, CACHE)
    packages.prompts("en", CACHE)


EXAMPLES = {
    "silero_vad": Example(
        name="silero_vad",
        checkpoint=".cache/silero_vad/silero_vad_16k.safetensors",
        run=".cache/silero_vad/vad-s90",
        spec="examples/silero_vad/vad_task.py:make",
        prepare=prepare,
        recipe="--scope tensor --steps 200 --lr 0.001 --control-lr 0.0001 --threads 1 --end 0.4 --frequency 10",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
