"""A recogniser from nothing to the figures of docs/results/speech.md: train, prune over three seeds, export, evaluate.

Usage: python -m examples.speech.run en|it [FOLDER]      (default folder: .cache/speech; fetch.py fills it)

What is there already is not done again. Figures go to docs/results/speech_LANGUAGE.json; results.py makes the tables.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

CACHE = Path(".cache/speech")
SEEDS = (0, 1, 2)
TRAIN = (
    "ctc --data {cache}/{language}.tsv --cell lstm --hidden 192 --layers 2 --stride 3 --channels 16 --no-augment "
    "--batch-size 8 --steps 600 --lr 0.002 --threads 1"
)
FINETUNE = (
    "--target 0.9 --scope model --frequency 10 --end 0.4 --batch-size 8 --steps 300 --lr 0.002 --control --threads 1"
)


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


def train(language: str, cache: Path) -> dict[str, Any]:
    words = TRAIN.format(cache=cache, language=language).split()
    return done(cache / f"{language}.pt", "train", *words, "--out", str(cache / f"{language}.pt"))


def prune(language: str, seed: int, cache: Path) -> dict[str, Any]:
    """One seed: fine-tuned with its control, exported, the sparse file scored."""
    run = cache / f"{language}-s90-seed{seed}"
    words = (str(cache / f"{language}.pt"), *FINETUNE.split(), "--seed", str(seed), "--out", str(run))
    told = done(run, "finetune", *words)
    exported = done(run / "export", "export", str(run), "--format", "csr")
    sparse = done(run / "evaluate", "evaluate", exported["file"], "--threads", "1")
    figures = json.loads((run / "rnnprune.json").read_text(encoding="utf-8"))["figures"]
    return {
        "seed": seed,
        "figures": figures,
        "sparse_file": {key: sparse[key] for key in ("value", "engine")},
        "bytes": {"csr": exported["bytes"], "dense": (run / "model.safetensors").stat().st_size},
        "per_tensor": told["sparsity"]["per_tensor"],
        "seconds": told["seconds"],
    }


def main(language: str, cache: Path) -> None:
    answer = {
        "language": language,
        "commands": {"train": TRAIN.format(cache=cache, language=language), "finetune": FINETUNE},
        "dense": train(language, cache),
        "runs": [prune(language, seed, cache) for seed in SEEDS],
        "machine": {"torch": torch.__version__, "processor": platform.machine()},
        "date": time.strftime("%Y-%m-%d"),
    }
    path = Path(f"docs/results/speech_{language}.json")
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("en", "it"):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else CACHE)
