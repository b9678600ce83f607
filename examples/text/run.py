"""One built-in task from nothing to the figures of docs/results: train, prune over three seeds, export, evaluate.

Usage: python examples/text/run.py translation|g2p|lm [FOLDER]      (default folder: .cache/text; fetch.py fills it)

What is there already is not done again; the figures go to docs/results/TASK.json, results.py makes the tables of them.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

CACHE = Path(".cache/text")
SEEDS = (0, 1, 2)


class Recipe(NamedTuple):
    """The words after `rnnprune train` and `rnnprune finetune`."""

    train: str
    finetune: str


PRUNING = "--target 0.9 --scope model --frequency 20 --control --threads 1"
RECIPES = {
    "translation": Recipe(
        "seq2seq --data {cache}/translation.tsv --level piece --vocab 1000 --hidden 192 --embedding 128 --dropout 0.1 "
        "--steps 1600 --lr 0.002 --threads 1",
        f"{PRUNING} --steps 360 --lr 0.002 --end 0.4",
    ),
    "g2p": Recipe(
        "seq2seq --data {cache}/g2p.tsv --level char --target-level word --metric WER --hidden 192 --embedding 64 "
        "--steps 2000 --lr 0.002 --threads 1",
        f"{PRUNING} --steps 600 --lr 0.002 --end 0.4",
    ),
    "lm": Recipe(
        "lm --data {cache}/fortunes.txt --cell lstm --hidden 256 --embedding 64 --steps 1500 --lr 0.002 --threads 1",
        f"{PRUNING} --steps 700 --lr 0.002 --end 0.4",
    ),
}


def rnnprune(*words: str) -> dict[str, Any]:
    """One command; its progress on stderr in sight, its figures from --json."""
    print("$ rnnprune", *words, file=sys.stderr, flush=True)
    finished = subprocess.run(
        [sys.executable, "-m", "rnnprune", *words, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if finished.returncode:
        sys.exit(finished.returncode)
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def done(path: Path, *words: str) -> dict[str, Any]:
    """The answer of a command, kept in a file beside its output; run only where that is missing."""
    kept = path.with_name(path.name + ".json")
    if not kept.is_file():
        kept.write_text(json.dumps(rnnprune(*words)), encoding="utf-8")
    answer: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return answer


def main(task: str, cache: Path) -> None:
    recipe, checkpoint = RECIPES[task], cache / f"{task}.pt"
    trained = done(checkpoint, "train", *recipe.train.format(cache=cache).split(), "--out", str(checkpoint))
    runs: list[dict[str, Any]] = []
    answer = {
        "task": task,
        "commands": {"train": recipe.train.format(cache=cache), "finetune": recipe.finetune},
        "dense": trained,
        "runs": runs,
        "machine": {"torch": torch.__version__, "processor": platform.machine()},
        "date": time.strftime("%Y-%m-%d"),
    }
    path = Path(f"docs/results/{task}.json")
    for seed in SEEDS:
        told = prune(cache / f"{task}-s90-seed{seed}", checkpoint, recipe, seed)
        answer |= {key: told["metric"][key] for key in ("name", "goal")}
        runs.append({"seed": seed, **told})
        path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")  # after every seed: they take long
    print(path)


def prune(run: Path, checkpoint: Path, recipe: Recipe, seed: int) -> dict[str, Any]:
    """One seed: finetune, export, evaluate the sparse file; all that the tables need."""
    words = ("finetune", str(checkpoint), *recipe.finetune.split(), "--seed", str(seed), "--out", str(run))
    told = done(run, *words)
    exported = done(run / "export", "export", str(run), "--format", "csr")
    sparse = done(run / "evaluate", "evaluate", exported["file"], "--threads", "1")
    figures = json.loads((run / "rnnprune.json").read_text(encoding="utf-8"))["figures"]
    return {
        "metric": told["metric"],
        "figures": {label: splits["test"] for label, splits in figures.items()},
        "sparse_file": {key: sparse[key] for key in ("value", "engine")},
        "bytes": {"csr": exported["bytes"], "dense": (run / "model.safetensors").stat().st_size},
        "achieved": told["sparsity"]["achieved"],
        "steps": told["steps"],
    }


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in RECIPES:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else CACHE)
