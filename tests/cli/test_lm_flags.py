"""`train lm`: --tied and --carry reach the checkpoint, and the commands after it need no flag."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SIZES = ("--seq-len", "20", "--batch-size", "8")


def test_tied_and_carry(rnnprune: Callable[..., Any], folder: Path, letters: Path) -> None:
    train = ("train", "lm", "--data", letters.name, "--out", "ckpt.pt", "--hidden", "16", "--tied", "--carry", *SIZES)
    told = rnnprune(*train)
    assert (told.code, "embedding 64, hidden 16" in told.err) == (2, True)
    assert rnnprune(*train, "--embedding", "16", "--steps", "5").code == 0
    stored = torch.load(folder / "ckpt.pt", weights_only=True)
    assert (stored["rnnprune"]["model"]["tied"], stored["rnnprune"]["model"]["carry"]) == (True, True)
    assert rnnprune("finetune", "ckpt.pt", "--steps", "20", *SIZES).code == 0
    told = rnnprune("report")
    assert "tied to embedding.weight" in " ".join(told.out.split())
    assert rnnprune("evaluate", rnnprune("export", "--json").json["file"]).code == 0
