"""A language model of letters that was never trained, as a checkpoint that says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnprune.tasks.lm import LmModelSpec, LmTask


def untrained_lm(folder: Path, **sizes: Any) -> Path:
    """`ckpt.pt`, beside its text `letters.txt`; sizes: those of LmModelSpec."""
    text = folder / "letters.txt"
    text.write_text("".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 3000)), encoding="utf-8")
    torch.manual_seed(0)
    task = LmTask.from_text(text, LmModelSpec(**sizes), batch_size=8, length=20)
    torch.save({"model": task.build_model().state_dict(), "rnnprune": task.metadata}, folder / "ckpt.pt")
    return folder / "ckpt.pt"
