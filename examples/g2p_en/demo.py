"""`make demo`: a real checkpoint from end to end, with the commands a user would type, ending with one table.

Fetch g2p-en, fine-tune it to 90 % zeros, export, report, evaluate, bench. The recipe here is short; the full one, and
what it reaches, is in docs/results/g2p_en.md.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path("examples/g2p_en")  # run from the top of the repository, as `make demo` does
CACHE = Path(".cache/g2p_en")
CHECKPOINT = CACHE / "g2p.pt"
RUN = Path("demo/g2p-s90")
TASK = ["--task", f"{HERE / 'g2p_task.py'}:make", "--data", str(CACHE)]
SCHEDULE = ["--scope", "model", "--end", "0.3", "--frequency", "50"]
RECIPE = ["--target", "0.9", *SCHEDULE, "--steps", "2400", "--lr", "0.002", "--control", "--control-lr", "0.0001"]


def show(words: Sequence[str]) -> None:
    print(f"\n$ {shlex.join(words)}", flush=True)


def rnnprune(*arguments: str) -> dict[str, Any]:
    """Run one command, its progress on stderr in sight; the figures come back from --json."""
    show(["rnnprune", *arguments])
    command = [sys.executable, "-m", "rnnprune", *arguments, "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def prepare() -> None:
    for script in ("fetch.py", "convert.py"):
        show(["python", str(HERE / script), str(CACHE)])
        subprocess.run([sys.executable, str(HERE / script), str(CACHE)], check=True)


def latency(rows: Sequence[Mapping[str, Any]], engine: str) -> str:
    """Median of the decoder's GRU over 100 steps, batch 1."""
    median = next(row["median_us"] for row in rows if row["op"] == "gru" and row["engine"] == engine)
    return f"{median / 1000:.2f} ms"


def main() -> None:
    began = time.monotonic()
    prepare()
    run = rnnprune("finetune", str(CHECKPOINT), *TASK, *RECIPE, "--out", str(RUN), "--overwrite")
    exported = rnnprune("export", str(RUN), "--format", "csr")
    half = rnnprune("export", str(RUN), "--format", "csr", "--values", "fp16")
    report = rnnprune("report", str(RUN))
    dense = rnnprune("evaluate", str(CHECKPOINT), *TASK)
    sparse = rnnprune("evaluate", exported["file"], *TASK)
    halved = rnnprune("evaluate", half["file"], *TASK)
    rows = rnnprune("bench", exported["file"])["rows"]

    table = Table("", "PER %", "WER %", "file", "of dense", "zeros", "GRU, 100 steps")
    size = report["total"]["on_disk"]
    control = f"{run['metric']['dense_control']:.2f}"
    zeros = f"{report['pruned']['sparsity']:.2%}"
    dense_time, int8_time = latency(rows, "torch-dense-fp32"), latency(rows, "torch-dense-int8")
    table.add_row("dense, as fetched", *figures(dense), kilobytes(size), "100 %", "0 %", f"{dense_time} fp32")
    table.add_row("dense, trained on as long", control, "", kilobytes(size), "100 %", "0 %", f"{int8_time} int8")
    for label, scored, file in (("sparse", sparse, exported), ("sparse, fp16 values", halved, half)):
        share = f"{file['bytes'] / size:.1%}"
        time_taken = f"{latency(rows, 'torch-csr')} torch-csr"
        table.add_row(label, *figures(scored), kilobytes(file["bytes"]), share, zeros, time_taken)
    Console(width=120 if not sys.stdout.isatty() else None).print("\n", table)
    print(f"zeros: share in the pruned matrices; latency: batch 1. {time.monotonic() - began:.0f} s in all; see {RUN}/")


def figures(scored: Mapping[str, Any]) -> tuple[str, str]:
    return f"{scored['figures']['PER']:.2f}", f"{scored['figures']['WER']:.2f}"


def kilobytes(count: int) -> str:
    return f"{count / 1000:,.0f} kB"


if __name__ == "__main__":
    main()
