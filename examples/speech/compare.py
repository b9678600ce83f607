"""The pruned recogniser run dense and sparse: are the answers the same, and how long does one prompt take?

Usage: python -m examples.speech.compare en|it [FOLDER]      (after run.py; one thread; a quiet machine)

Writes docs/results/speech_LANGUAGE_speed.json. The weights are the same on both sides, so any difference is rounding.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import rnnprune
from examples.speech.run import CACHE
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.tasks.builtin import builtin_task
from rnnprune.tasks.ctc.decode import greedy
from rnnprune.tasks.ctc.task import CtcTask

ROUNDS = 5


def milliseconds(model: Any, features: torch.Tensor) -> float:
    began = time.perf_counter()
    model(features[None], torch.tensor([len(features)]))
    return 1000 * (time.perf_counter() - began)


@torch.no_grad()
def main(language: str, cache: Path) -> None:
    torch.set_num_threads(1)
    run = cache / f"{language}-s90-seed0"
    file = run / "model.csr.safetensors"
    dense, sparse = rnnprune.load(run, engine="torch-dense-fp32", threads=1), rnnprune.load(file, threads=1)
    metadata = read_checkpoint(file).metadata
    task = builtin_task({key: metadata[key] for key in ("task", "model", "data")})
    assert isinstance(task, CtcTask)
    same, largest, times, seconds = 0, 0.0, [], []
    items = task.corpus.splits["test"]
    for item in items:
        features = task.corpus.features.read(item.audio)[0]
        length = torch.tensor([len(features)])
        a, b = (model(features[None], length)[0][0] for model in (dense, sparse))
        largest = max(largest, float((a - b).abs().max()))
        same += greedy(a) == greedy(b)
        pairs = [[milliseconds(model, features) for model in (dense, sparse)] for _ in range(ROUNDS)]  # in turn
        times.append([min(column) for column in zip(*pairs, strict=True)])
        seconds.append(item.frames / 100)
    ratios = [before / after for before, after in times]
    q1, median, q3 = statistics.quantiles(ratios, n=4)
    answer = {
        "prompts": len(items),
        "seconds": statistics.median(seconds),
        "same": same,
        "max_difference": largest,
        "milliseconds": {
            "dense": statistics.median(before for before, _ in times),
            "sparse": statistics.median(after for _, after in times),
            "ratio": {"q1": q1, "median": median, "q3": q3},
        },
        "realtime": {
            name: sum(seconds) / (sum(column) / 1000)
            for name, column in zip(("dense", "sparse"), zip(*times, strict=True), strict=True)
        },
        "layers": [f"{layer.name}: {layer.engine} {layer.layout}".strip() for layer in rnnprune.describe(sparse)],
    }
    path = Path(f"docs/results/speech_{language}_speed.json")
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else CACHE)
