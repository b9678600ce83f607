"""Time an LSTM with 1024 units, 90 % zeros, dense against sparse: `make bench`.

    python examples/bench_lstm.py [FLAGS OF rnnprune bench]

Random weights: speed depends on the pattern of zeros, not on what the network has learned. First single weights, then
blocks of sixteen rows; each as a sequence of 100 steps and step by step.
"""

from __future__ import annotations

import subprocess
import sys

BENCH = [sys.executable, "-m", "rnnprune", "bench", "--shapes", "lstm:512x1024", "--sparsity", "0.9"]
SETTINGS = ["--batch", "1,8", "--threads", "1,2"]


def main() -> None:
    for block in ("1x1", "16x1"):
        subprocess.run([*BENCH, "--block", block, *SETTINGS, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
