"""`make demo`: a real checkpoint from end to end, with the commands a user would type, ending with one table.

Fetch g2p-en, fine-tune it to 90 % zeros, export, report, evaluate, bench. The recipe here is short; the full one, and
what it reaches, is in docs/results/g2p_en.md.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.commands import ask
from examples.g2p_en.run import EXAMPLES

G2P = EXAMPLES["g2p_en"]  # run from the top of the repository, as `make demo` does
RIVALS = {"fp32": ("torch-dense-fp32",), "int8": ("torch-dense-int8",), "sparse": ("native", "torch-csr")}
RUN = Path("demo/g2p-s90")
SCHEDULE = ["--scope", "model", "--end", "0.3", "--frequency", "50"]
RECIPE = ["--target", "0.9", *SCHEDULE, "--steps", "2400", "--lr", "0.002", "--control", "--control-lr", "0.0001"]


def main() -> None:
    began = time.monotonic()
    G2P.prepare()
    ask("finetune", G2P.checkpoint, *G2P.task, *RECIPE, "--out", str(RUN), "--overwrite")
    exported = ask("export", str(RUN), "--format", "csr")
    half = ask("export", str(RUN), "--format", "csr", "--values", "fp16")
    report = ask("report", str(RUN))
    dense = ask("evaluate", G2P.checkpoint, *G2P.task)
    sparse = ask("evaluate", exported["file"], *G2P.task)
    halved = ask("evaluate", half["file"], *G2P.task)
    timed = ask("bench", exported["file"])
    rows, checks = (list(filter(is_encoder, timed[name])) for name in ("rows", "same_again"))

    size, zeros = report["total"]["on_disk"], f"{report['pruned']['sparsity']:.2%}"
    control = json.loads((RUN / "rnnprune.json").read_text(encoding="utf-8"))["figures"]["dense_control"]["test"]
    times = {name: fastest(rows, engines) for name, engines in RIVALS.items()}
    table = Table("", "PER %", "WER %", "file", "of dense", "zeros", "GRU, 100 steps, batch 1")
    table.add_row("dense, as fetched", *errors(dense["figures"]), kilobytes(size), "100%", "0%", told(times["fp32"]))
    table.add_row("dense, trained on as long", *errors(control), kilobytes(size), "100%", "0%", told(times["fp32"]))
    table.add_row("dense, torch's dynamic int8", "", "", "", "", "0%", told(times["int8"]))
    for label, scored, file in (("sparse", sparse, exported), ("sparse, fp16 values", halved, half)):
        sizes = (kilobytes(file["bytes"]), f"{file['bytes'] / size:.1%}")
        table.add_row(label, *errors(scored["figures"]), *sizes, zeros, told(times["sparse"]))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    ratios = (f"{times[name][0] / times['sparse'][0]:.1f}x as fast as dense {name}" for name in ("fp32", "int8"))
    print(f"The sparse GRU is {' and '.join(ratios)} (below 1: slower). Sparse files scored by {sparse['engine']}.")
    if any(row["noisy"] for row in rows) or any(check["verdict"] != "equal" for check in checks):
        print("The machine was busy: these times are too noisy to trust; `rnnprune bench demo/g2p-s90` measures again.")
    print(f"{time.monotonic() - began:.0f} s in all; see {RUN}/")


def is_encoder(row: Mapping[str, Any]) -> bool:
    """The encoder over a sequence, of what `bench` gives."""
    return bool(row["name"] == "encoder" and row["steps"] > 1)


def fastest(rows: Sequence[Mapping[str, Any]], engines: tuple[str, ...]) -> tuple[float, str]:
    """Median microseconds of the fastest of these engines, and its name."""
    timed = ((row["median_us"], row["engine"]) for row in rows if row["engine"].startswith(engines))
    return min(timed, default=(math.nan, "not measured"))


def told(timing: tuple[float, str]) -> str:
    return f"{timing[0] / 1000:.2f} ms {timing[1]}"


def errors(figures: Mapping[str, float]) -> tuple[str, str]:
    return f"{figures['PER']:.2f}", f"{figures['WER']:.2f}"


def kilobytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB"


if __name__ == "__main__":
    main()
