"""The goals on a GPU against what examples/bench_gpu.sh measured: one line per case, engine and run.

python examples/bench_gpu_summary.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Goal(NamedTuple):
    """Times as fast as the best dense engine of that width, per step of a sequence."""

    op: str
    shape: str
    block: str
    batch: int
    dtype: str
    ratio: float


GOALS = (
    Goal("gru", "1760->1760", "1x1", 1, "fp32", 2.5),
    Goal("gru", "2560->2560", "1x1", 1, "fp32", 5.0),
    Goal("lstm", "3072->3072", "1x1", 1, "fp32", 7.0),
    Goal("lstm", "3072->3072", "1x1", 1, "fp16", 4.5),
    Goal("gru", "1760->1760", "16x1", 1, "fp32", 3.0),
    Goal("gru", "2560->2560", "16x1", 1, "fp32", 6.0),
    Goal("lstm", "3072->3072", "16x1", 1, "fp32", 8.4),
    Goal("gru", "1760->1760", "1x1", 8, "fp32", 1.4),
    Goal("gru", "2560->2560", "1x1", 8, "fp32", 1.4),
    Goal("lstm", "3072->3072", "1x1", 8, "fp32", 1.4),
)
OVER_CUSPARSE = 3.0


def rows_of(folder: Path) -> Iterator[tuple[str, Row]]:
    """Every row with the name of its file."""
    for file in sorted(folder.glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            yield file.stem, row


def goal_of(row: Row) -> Goal | None:
    """The goal that a row is held to."""
    key = (row["op"], row["shape"], row["block"], row["batch"], row["dtype"])
    return next((goal for goal in GOALS if goal[:5] == key), None) if row["mode"] == "sequence" else None


def line_of(name: str, row: Row, over_cusparse: float | None) -> str:
    """One row in one line."""
    goal = goal_of(row)
    verdict = "" if goal is None else f" / {goal.ratio:g}{'' if row['vs_best_dense'] >= goal.ratio else ' missed'}"
    csr = "" if over_cusparse is None else f", {over_cusparse:.2f} x torch-csr"
    csr += " (missed 3)" if over_cusparse is not None and over_cusparse < OVER_CUSPARSE else ""
    case = f"{row['op']} {row['shape']} {row['sparsity']:.0%} {row['block']} batch {row['batch']} {row['mode']}"
    us = f"{row['median_us'] / row['steps']:.2f} us a step, {row['bound_us'] / row['median_us']:.0%} of bound"
    error = f"error {row['max_error']:.0e}{' SUSPECT' if row['suspect'] else ''}"
    ratio = f"{row['vs_best_dense']:.2f} x {row['best_dense']}{verdict}"
    return f"{name}: {case}: {row['engine']} {us}; {ratio}{csr}; {error}"


def summary(folder: Path) -> list[str]:
    """Lines of the sparse engines of this package; then every failure."""
    rows = list(rows_of(folder))
    keys = ("op", "shape", "sparsity", "block", "batch", "mode")
    cusparse: dict[tuple[Any, ...], float] = {}
    for name, row in rows:
        if row["engine"].startswith("torch-csr"):
            key = (name, *(row[each] for each in keys))
            cusparse[key] = min(row["median_us"], cusparse.get(key, float("inf")))
    lines = []
    for name, row in rows:
        if row["engine"].startswith("triton"):
            rival = cusparse.get((name, *(row[each] for each in keys)))
            lines.append(line_of(name, row, None if rival is None else rival / row["median_us"]))
    for file in sorted(folder.glob("*.json")):
        for each in json.loads(file.read_text(encoding="utf-8"))["failed"]:
            lines.append(f"{file.stem}: FAILED {each['op']} {each['shape']} {each['engine']}: {each['error']}")
    return lines or ["no results"]


if __name__ == "__main__":
    print("\n".join(summary(Path(sys.argv[1]))))
