"""Fine-tune textgenrnn to 90 %, export, judge the sparse file, and write docs/results/textgenrnn.md.

python examples/textgenrnn/run.py measure 0 [SEED ...]   after fetch.py and convert.py; a seed's figures as JSON
python examples/textgenrnn/run.py render                 the page's table from what lies there
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "textgenrnn"
RESULTS, PAGE = ROOT / "docs" / "results" / "textgenrnn", ROOT / "docs" / "results" / "textgenrnn.md"
START, END = "<!-- figures: examples/textgenrnn/run.py render -->\n", "<!-- end -->"
TASK = ["--task", f"{ROOT / 'examples' / 'textgenrnn' / 'textgen_task.py'}:make", "--data", str(CACHE)]
RECIPE = ["--target", "0.9", "--steps", "500", "--lr", "0.004", "--end", "0.7", "--frequency", "10", "--threads", "1"]
CONTROL = ["--control", "--control-lr", "0.001"]
COLUMNS = {"dense": "dense", "dense_control": "control", "sparse": "90 %, dense layout", "native": "90 %, sparse file"}


def rnnprune(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rnnprune", *arguments, "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def largest_difference(run: Path, file: str) -> float:
    """Between the logits of the sparse model and of the pruned dense one, over 2,000 windows of the test split."""
    import torch
    from safetensors.torch import load_file
    from textgen_task import make, windows

    from rnnprune import sparsify

    task = make(CACHE)
    dense, sparse = task.build_model().eval(), sparsify(task.build_model().eval(), file, engine="native")
    dense.load_state_dict(load_file(run / "model.safetensors"))
    with torch.no_grad():
        parts = [part[:, :-1] for part, _ in zip(windows(task.splits["test"]), range(4), strict=False)]
        return max(float((dense(part) - sparse(part)).abs().max()) for part in parts)


def measure(seed: str) -> None:
    run = CACHE / f"textgenrnn-s90-seed{seed}"
    if not (run / "rnnprune.json").exists():
        rnnprune("finetune", str(CACHE / "textgenrnn.pt"), *TASK, *RECIPE, *CONTROL, "--seed", seed, "--out", str(run))
    exported = rnnprune("export", str(run), "--format", "csr", "--overwrite")
    sparse = rnnprune("evaluate", exported["file"], *TASK, "--engine", "native")
    card = json.loads((run / "rnnprune.json").read_text(encoding="utf-8"))
    figures = {label: card["figures"][label]["test"]["bpc"] for label in ("dense", "dense_control", "sparse")}
    figures |= {"native": sparse["value"], "engine": sparse["engine"], "bytes": exported["bytes"]}
    figures |= {"largest_difference": largest_difference(run, exported["file"])}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"seed{seed}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def table(results: Path) -> str:
    """One row per seed, then the means, and the standard deviations of several."""
    raw = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("seed*.json"))}
    rows = {name: [figures[key] for key in COLUMNS] for name, figures in raw.items()}
    told = {name: [f"{bpc:.3f}" if bpc else "not run" for bpc in [*row, gap(row)]] for name, row in rows.items()}
    heads = ["run", *COLUMNS.values(), "gap to the control", "sparse file", "largest difference"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, figures in raw.items():
        cells = [*told[name], f"{figures['bytes'] / 1000:,.0f} kB", f"{figures['largest_difference']:.1e}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    complete = [row for row in rows.values() if gap(row) is not None]
    if len(complete) > 1:
        columns = [*zip(*complete, strict=True), [gap(row) for row in complete]]
        means = [f"{statistics.fmean(column):.3f} +- {statistics.stdev(column):.3f}" for column in columns]
        lines.append(f"| mean | {' | '.join(means)} | | |")
    return "\n".join(lines) + "\n"


def gap(row: list[float | None]) -> float | None:
    """How much worse the sparse model is than the control, where there is one."""
    return row[2] - row[1] if row[1] and row[2] else None


def rendered(page: str, results: Path) -> str:
    before, after = page.split(START)[0], page.split(END)[1]
    return before + START + table(results) + END + after


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"] and sys.argv[2:]:
        for number in sys.argv[2:]:
            measure(number)
    elif sys.argv[1:] != ["render"]:
        sys.exit(__doc__)
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
