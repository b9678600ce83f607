"""The table of docs/results/g2p_en.md, from finished run folders: one row per seed, then mean and standard deviation.

Usage: python examples/g2p_en/results.py RUN [RUN ...]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

COLUMNS = [(label, name) for label in ("dense", "dense_control", "sparse") for name in ("PER", "WER")]


def row(run: Path) -> list[float]:
    """PER and WER of the dense, the control and the sparse model on the test split."""
    figures = json.loads((run / "rnnprune.json").read_text(encoding="utf-8"))["figures"]
    return [figures[label]["test"][name] for label, name in COLUMNS]


def main(runs: list[Path]) -> None:
    print("| run | " + " | ".join(f"{label.replace('_', ' ')} {name}" for label, name in COLUMNS) + " | gap in PER |")
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    rows = {run.name: row(run) for run in runs}
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + f" | {cells[4] - cells[2]:.2f} |")
    columns = [*zip(*rows.values(), strict=True), [cells[4] - cells[2] for cells in rows.values()]]
    spread = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
    means = [f"{statistics.fmean(column):.2f} +- {sd:.2f}" for column, sd in zip(columns, spread, strict=True)]
    print("| mean | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
