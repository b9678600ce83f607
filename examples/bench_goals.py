"""Measure everything that docs/benchmarks.md shows, and write its tables.

    python examples/bench_goals.py list                        the names of all measurements
    python examples/bench_goals.py measure --run 1 [NAME ...]  the missing ones (of these) into docs/results/bench
    python examples/bench_goals.py render                      the tables of the page from what lies there

Every measurement is one call of `rnnprune bench --json`; its answer is kept as NAME-RUN.json, figures cut to four
digits, without what is empty. What is there already is not measured again, so an interrupted run goes on where it
stopped. Two runs make a table. Give the machine nothing else to do meanwhile; `onnx` and `onnxruntime` are timed where
they are installed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_tables

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "results" / "bench"
RUNS = (1, 2)
KEPT = ("rows", "same_again", "break_even")  # even where empty
MEASUREMENTS = {
    "matrix-1760": "--shapes 1760x1760 --threads 1",
    "matrix-1760-memory": "--shapes 1760x1760 --threads 1 --memory",
    "matrix-1760-batch-16": "--shapes 1760x1760 --threads 1 --batch 16",
    "matrix-3072": "--shapes 3072x3072 --sparsity 0.95 --threads 1",
    "blocks-16x1": "--shapes 1760x1760 --block 16x1 --threads 1",
    "blocks-8x4": "--shapes 1760x1760 --block 8x4 --threads 1",
    "lstm-1024": "--shapes lstm:512x1024 --threads 1,2 --rounds 10",
    "lstm-1024-batch-8": "--shapes lstm:512x1024 --batch 8 --threads 1,2 --rounds 10",
    "gru-1760": "--shapes gru:1760x1760 --threads 1 --rounds 10",
    "gru-1760-2-threads": "--shapes gru:1760x1760 --threads 2 --rounds 10",
    "lstm-256": "--shapes lstm:256x256 --threads 1,2",
    "lstm-1024-blocks": "--shapes lstm:512x1024 --block 16x1 --threads 1,2 --rounds 10",
    "gru-1760-blocks": "--shapes gru:1760x1760 --block 16x1 --threads 1 --rounds 10",
    "gru-1760-blocks-2-threads": "--shapes gru:1760x1760 --block 16x1 --threads 2 --rounds 10",
    "blocks-int8-memory": "--shapes 1760x1760 --block 16x1 --threads 1 --memory "
    "--engines torch-dense-int8,native:16x1,native:16x1:int8",
    "paper": "--shapes paper --threads 1 --batch 1,16 --rounds 10 --engines torch-dense-int8,torch-csr,native:auto",
    "break-even": "--shapes 1760x1760,lstm:256x256,lstm:512x1024 --break-even --threads 1 --rounds 5 "
    "--engines native:auto",
    "small": "--shapes 74x256,64x64,gru:32x32 --threads 1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the names of all measurements")
    measuring = commands.add_parser("measure", help="run what is missing")
    measuring.add_argument("names", nargs="*", metavar="NAME", choices=list(MEASUREMENTS))
    measuring.add_argument("--run", type=int, choices=RUNS, required=True)
    measuring.add_argument("--rounds", help="instead of each measurement's own, for a quick look")
    rendering = commands.add_parser("render", help="write the tables of the page")
    rendering.add_argument("--page", type=Path, default=PAGE)
    for each in (measuring, rendering):
        each.add_argument("--results", type=Path, default=RESULTS, help="folder of the raw figures")
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(MEASUREMENTS))
    elif arguments.command == "measure":
        for name in arguments.names or MEASUREMENTS:
            measure(name, arguments.results / f"{name}-{arguments.run}.json", arguments.rounds)
    else:
        page = arguments.page.read_text(encoding="utf-8")
        write_atomically(arguments.page, with_tables(page, read_answers(arguments.results)))


def measure(name: str, path: Path, rounds: str | None) -> None:
    """Run one measurement, unless its file is there. CalledProcessError when the command fails."""
    if path.exists():
        print(f"{name}: {path} is there", file=sys.stderr)
        return
    began = time.perf_counter()
    flags = MEASUREMENTS[name].split() + ["--json"] + (["--rounds", rounds] if rounds else [])
    told = subprocess.run([sys.executable, "-m", "rnnprune", "bench", *flags], stdout=subprocess.PIPE, check=True)
    answer = json.loads(told.stdout, parse_float=four_digits, object_hook=without_empty)
    answer = {"command": " ".join(["rnnprune bench", *flags]), **answer}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(answer, separators=(",", ":"), allow_nan=False) + "\n")
    print(f"{name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size:,} bytes", file=sys.stderr)


def four_digits(text: str) -> float:
    return float(f"{float(text):.4g}")


def without_empty(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value not in (None, "", []) or key in KEPT}


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_answers(results: Path) -> dict[str, list[Any]]:
    """Measurement -> its answers, one for each run that is there."""
    return {
        name: [json.loads(path.read_text("utf-8")) for run in RUNS if (path := results / f"{name}-{run}.json").exists()]
        for name in MEASUREMENTS
    }


def with_tables(page: str, answers: dict[str, list[Any]]) -> str:
    """The page with every block between `<!-- begin NAME ... -->` and `<!-- end NAME -->` made anew."""
    for name, table in bench_tables.all_tables(answers, MEASUREMENTS).items():
        block = re.compile(rf"(<!-- begin {name}\b[^\n]*-->\n).*?(<!-- end {name} -->)", re.DOTALL)
        page, count = block.subn(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"the page has {count} blocks `<!-- begin {name} -->` ... `<!-- end {name} -->`, not one")
    return page


if __name__ == "__main__":
    main()
