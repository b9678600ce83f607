"""The pruned model run dense and sparse: are the answers the same, and how long does one sentence take?

Usage: python examples/text/compare.py translation|g2p|lm [FOLDER]      (after run.py; one thread; a quiet machine)

Writes docs/results/TASK_speed.json. The weights are the same on both sides, so any difference is rounding.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rnnprune
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.tasks.builtin import builtin_task
from rnnprune.tasks.seq2seq.decoding import padded
from rnnprune.tasks.seq2seq.task import Seq2SeqTask
from rnnprune.training.loop import build_optimizer, train
from rnnprune.training.recipe import Recipe

CACHE = Path(".cache/text")
SENTENCES, ROUNDS, STEPS = 40, 5, 40
CHARACTERS = 200


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def in_turn(works: Sequence[Callable[[], Any]]) -> list[float]:
    """Milliseconds of each, the fastest of ROUNDS, their turns interleaved."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS + 1):  # the first warms up
        for work, kept in zip(works, times, strict=True):
            began = time.perf_counter()
            work()
            kept.append(1000 * (time.perf_counter() - began))
    return [min(kept[1:]) for kept in times]


def compare_answers(task: Seq2SeqTask, dense: Any, sparse: Any) -> dict[str, Any]:
    sources = list(task.corpus.test)
    given, again = dense.translate(sources), sparse.translate(sources)
    largest = 0.0
    for source in sources[:SENTENCES]:
        numbers = padded([dense.source.encode(source)])
        before = padded([dense.target.encode(task.corpus.test[source][0])])
        largest = max(largest, difference(dense(numbers, before), sparse(numbers, before)))
    times = [
        in_turn([lambda s=s: dense.translate([s]), lambda s=s: sparse.translate([s])]) for s in sources[:SENTENCES]
    ]
    steps = [len(dense.target.encode(answer)) + 1 for answer in given[:SENTENCES]]
    return {
        "what": f"one sentence, greedy (median of {SENTENCES}, {statistics.fmean(steps):.1f} tokens on average)",
        "same": f"{sum(a == b for a, b in zip(given, again, strict=True))} of {len(sources)}",
        "max_difference": largest,
        "milliseconds": told(times),
    }


def compare_next(task: Any, dense: nn.Module, sparse: nn.Module) -> dict[str, Any]:
    tokens = task.corpus.test[: 20 * CHARACTERS].long().view(20, 1, CHARACTERS)
    scores = [torch.cat([model(row)[0] for row in tokens]) for model in (dense, sparse)]

    def one_by_one(model: nn.Module, row: torch.Tensor) -> None:
        state = None
        for place in range(CHARACTERS):
            _, state = model(row[:, place : place + 1], state)

    times = [in_turn([lambda r=row: one_by_one(dense, r), lambda r=row: one_by_one(sparse, r)]) for row in tokens]
    same = (scores[0].argmax(-1) == scores[1].argmax(-1)).sum()
    return {
        "what": f"{CHARACTERS} characters, one call each",
        "same": f"{int(same)} of {scores[0].shape[0] * CHARACTERS}",
        "max_difference": difference(*scores),
        "milliseconds": told(times),
    }


def told(times: list[list[float]]) -> dict[str, Any]:
    """Medians over the sentences, and the quartiles of dense / sparse."""
    ratios = statistics.quantiles([dense / sparse for dense, sparse in times], n=4)
    return {
        "dense": statistics.median(dense for dense, _ in times),
        "sparse": statistics.median(sparse for _, sparse in times),
        "ratio": {"q1": ratios[0], "median": ratios[1], "q3": ratios[2]},
    }


def training_step(task: Any) -> float:
    """Milliseconds of one step of dense training: the median of STEPS, after a warm-up."""
    model, recipe = task.build_model(), Recipe(steps=STEPS + 2)
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in train(model, task, recipe, build_optimizer(model, recipe), STEPS + 2)]
    return 1000 * statistics.median(b - a for a, b in pairwise(times[2:]))


def main(name: str, cache: Path) -> None:
    torch.set_num_threads(1)
    run = cache / f"{name}-s90-seed0"
    file = run / "model.csr.safetensors"
    dense, sparse = rnnprune.load(run, engine="torch-dense-fp32", threads=1), rnnprune.load(file, threads=1)
    metadata = read_checkpoint(file).metadata
    task = builtin_task({key: metadata[key] for key in ("task", "model", "data")})
    with torch.no_grad():
        if isinstance(task, Seq2SeqTask):
            compared = compare_answers(task, dense, sparse)
        else:
            compared = compare_next(task, dense, sparse)
    compared["training_step_milliseconds"] = training_step(task)
    compared["layers"] = [
        f"{layer.name} ({layer.layer}): {layer.engine} {layer.layout}".strip() for layer in rnnprune.describe(sparse)
    ]
    path = Path(f"docs/results/{name}_speed.json")
    path.write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(compared, indent=1))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else CACHE)
