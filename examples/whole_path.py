"""Dense model, 90 % with a dense control, sparse file, its figures on the fastest engine: for several seeds, as JSON.

    python -m examples.whole_path docs/results/tag.json        # the table of a results page from its raw figures

Run from the top of the repository. Every command is the one that a user would type; it is shown, and kept with the
figures.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LABELS = {"dense": "dense", "dense_control": "control", "sparse": "sparse", "file": "sparse file"}


def rnnprune(*arguments: str) -> dict[str, Any]:
    """Run one command, its progress on stderr in sight; the figures come back from --json."""
    print(f"\n$ rnnprune {shlex.join(arguments)}", flush=True)
    finished = subprocess.run(
        [sys.executable, "-m", "rnnprune", *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if finished.returncode:
        sys.exit(finished.returncode)
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def one_seed(seed: int, checkpoint: str, recipe: Sequence[str], out: Path, task: Sequence[str] = ()) -> dict[str, Any]:
    """Fine-tune one checkpoint to 90 %, export it, and score the sparse file."""
    settings = [*recipe, "--control", "--seed", str(seed), "--out", str(out), "--overwrite"]
    finetune = ["finetune", checkpoint, *task, "--target", "0.9", *settings]
    told = rnnprune(*finetune)
    file = rnnprune("export", str(out), "--format", "csr")
    sparse = rnnprune("evaluate", file["file"], *task, "--threads", "1")
    manifest = json.loads((out / "rnnprune.json").read_text(encoding="utf-8"))
    figures = {label: splits["test"] for label, splits in manifest["figures"].items()} | {"file": sparse["figures"]}
    size = {"dense": (out / "model.safetensors").stat().st_size, "sparse": file["bytes"]}
    return {
        "seed": seed,
        "command": f"rnnprune {shlex.join(finetune)}",
        "metric": told["metric"]["name"],
        "goal": told["metric"]["goal"],
        "sparsity": told["sparsity"]["achieved"],
        "figures": figures,
        "engine": sparse["engine"],
        "bytes": size,
        "seconds": told["seconds"],
        "machine": manifest["machine"],
        "versions": manifest["versions"],
    }


def all_seeds(raw: Path, run: Callable[[int], dict[str, Any]]) -> None:
    """Seeds 0, 1, 2, or those of the command line; written after each, and the rows of other seeds stay."""
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1, 2]:
        row = run(seed)
        kept = json.loads(raw.read_text(encoding="utf-8"))["rows"] if raw.exists() else []
        rows = sorted([row, *(other for other in kept if other["seed"] != seed)], key=lambda row: row["seed"])
        raw.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(rows)}\n\n{raw}: the raw figures")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One row per seed and figure, then mean and standard deviation; what the sparse model lost against the control."""
    names = list(rows[0]["figures"]["sparse"])
    lines = ["| seed | figure | " + " | ".join(LABELS.values()) + " | sparse - control | relative |"]
    lines.append("|---" * (len(LABELS) + 4) + "|")
    cells = {name: [_cells(row["figures"], name) for row in rows] for name in names}
    for name, table_rows in cells.items():
        lines += [_line(str(row["seed"]), name, told) for row, told in zip(rows, table_rows, strict=True)]
    for name, table_rows in cells.items():
        lines.append(_mean_line(name, table_rows))
    return "\n".join(lines)


def _cells(figures: dict[str, dict[str, float]], name: str) -> list[float]:
    dense, control, sparse, file = (figures[label][name] for label in LABELS)
    return [dense, control, sparse, file, sparse - control, 100 * (sparse / control - 1)]


def _line(first: str, name: str, told: Sequence[float]) -> str:
    return f"| {first} | {name} | " + " | ".join(f"{cell:.4f}" for cell in told[:-1]) + f" | {told[-1]:+.2f} % |"


def _mean_line(name: str, rows: Sequence[Sequence[float]]) -> str:
    means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    if len(rows) == 1:
        return _line("mean", name, means)
    spread = [statistics.stdev(column) for column in zip(*rows, strict=True)]
    cells = [f"{mean:.4f} +- {sd:.4f}" for mean, sd in zip(means[:-1], spread[:-1], strict=True)]
    return f"| mean | {name} | " + " | ".join(cells) + f" | {means[-1]:+.2f} +- {spread[-1]:.2f} % |"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]))
