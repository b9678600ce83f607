"""Rewrite what fetch.py fetched for g2p_task.py: the weights as a PyTorch state dict, the dictionary as numbers.

Usage: python examples/g2p_en/convert.py [FOLDER]      (default: .cache/g2p_en; writes g2p.pt and words.json there)
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

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


def read_dictionary(source: Path, phonemes: list[str]) -> dict[str, list[list[int]]]:
    """Lines `word PH ON EMES # comment`, further pronunciations as `word(2)`; words of plain letters only."""
    number = {phoneme: i for i, phoneme in enumerate(phonemes)}
    words: dict[str, list[list[int]]] = defaultdict(list)
    for line in source.read_text(encoding="utf-8").splitlines():
        entry, *pronunciation = line.partition("#")[0].split()
        if word := re.fullmatch(r"([a-z]+)(\(\d+\))?", entry):
            words[word[1]].append([number[phoneme] for phoneme in pronunciation])
    return words


def convert(folder: Path) -> None:
    convert_weights(folder / "checkpoint20.npz", folder / "g2p.pt")
    phonemes = read_phonemes(folder / "g2p.py")
    words = read_dictionary(folder / "cmudict.dict", phonemes)
    (folder / "words.json").write_text(json.dumps({"phonemes": phonemes, "words": words}), encoding="utf-8")


if __name__ == "__main__":
    cache = Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/g2p_en")
    convert(cache)
    print(f"{cache}: g2p.pt, words.json")
