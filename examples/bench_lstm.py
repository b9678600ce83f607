"""Time an LSTM with 1024 units, pruned to 90 % in one shot, dense against sparse: `make bench`.

Random weights: speed depends on the pattern of zeros, not on what the network has learned.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

RNNPRUNE = [sys.executable, "-m", "rnnprune"]


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, run = Path(scratch, "lstm.pt"), Path(scratch, "lstm-s90")
        torch.save(nn.LSTM(512, 1024).state_dict(), checkpoint)
        subprocess.run([*RNNPRUNE, "prune", str(checkpoint), "--target", "0.9", "--out", str(run)], check=True)
        bench = ["bench", str(run), "--batch", "1,8", "--threads", "1,2", *sys.argv[1:]]
        subprocess.run([*RNNPRUNE, *bench], check=True)


if __name__ == "__main__":
    main()
