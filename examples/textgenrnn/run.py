"""textgenrnn from nothing: fetched, converted from Keras, scored as it came, 90 % of it pruned, exported, run sparse.

python -m examples.textgenrnn.run       # needs h5py once; docs/results/textgenrnn.md shows the figures
"""

from __future__ import annotations

from pathlib import Path

from examples import packages
from examples.textgenrnn.convert import convert_file
from examples.whole_path import Example, main

CACHE = Path(".cache/textgenrnn")
MEMBERS = {
    "textgenrnn/textgenrnn_weights.hdf5": "6a89ca4235ed9f00be7b2acd65d5fe4a099967d676bfe20afb696106286ffbca",
    "textgenrnn/textgenrnn_vocab.json": "f9c6c0db9b07fb57da023d32df66e16a488d086c138e15706307bb5177c2be74",
}


def prepare() -> None:
    """The weights as a state dict; all fortunes in one file, with lines `%` between them."""
    checkpoint, fortunes = CACHE / "textgenrnn.pt", CACHE / "fortunes.txt"
    if not checkpoint.exists():
        packages.source_archive("textgenrnn==2.0.0", MEMBERS, CACHE)
        convert_file(CACHE / "textgenrnn_weights.hdf5", checkpoint)
    if not fortunes.exists():
        fortunes.write_bytes(b"%\n".join(file.read_bytes() for file in packages.fortunes(CACHE)))


EXAMPLES = {
    "textgenrnn": Example(
        name="textgenrnn",
        checkpoint=".cache/textgenrnn/textgenrnn.pt",
        run=".cache/textgenrnn/textgenrnn-s90",
        spec="examples/textgenrnn/textgen_task.py:make",
        prepare=prepare,
        recipe="--steps 4000 --lr 0.004 --control-lr 0.001 --end 0.4 --frequency 50 --scope model --threads 1",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
