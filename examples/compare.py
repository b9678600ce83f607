"""The pruned model as torch runs it and as its sparse file runs: are the answers the same, and how long do they take?

The weights are the same on both sides, so any difference is rounding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

import rnnprune
from rnnprune.tasks.protocol import Task
from rnnprune.workflows.machine import describe_machine
from rnnprune.workflows.timing import interleave

BATCHES = 10  # whose logits are compared
TIMED, ROUNDS = 40, 5  # requests that are timed, the fastest of so many rounds of each


class Requests(NamedTuple):
    """What a user asks of a model, one at a time: each is called with the model and returns its answer."""

    what: str
    works: Sequence[Callable[[Any], Any]]


def both(run: Path, task: Task) -> tuple[nn.Module, nn.Module]:
    """The pruned model of a run folder, dense, and what `rnnprune.sparsify` makes of its sparse file; one thread."""
    torch.set_num_threads(1)
    dense = task.build_model().eval()
    dense.load_state_dict(load_file(run / "model.safetensors"))
    return dense, rnnprune.sparsify(task.build_model(), run / "model.csr.safetensors", threads=1)


@torch.no_grad()
def largest_difference(run: Path, task: Task) -> float:
    """Of any logit of the first training batches, between the two models. The loss of every task calls its model."""
    dense, sparse = both(run, task)
    found = [0.0]

    def compare(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        logits, again = (out[0] if isinstance(out, tuple) else out for out in (output, sparse(*inputs)))
        found.append(float((logits - again).abs().max()))

    dense.register_forward_hook(compare)
    for batch in islice(task.train_batches(epoch=0, seed=0, rank=0, world_size=1), BATCHES):
        task.loss(dense, batch)
    return max(found)


@torch.no_grad()
def speed(run: Path, task: Task, requests: Callable[[Any], Requests]) -> dict[str, Any]:
    """Milliseconds of one request (medians over the requests), the quartiles of dense / sparse, answers that agree."""
    models = both(run, task)
    what, works = requests(task)
    times = [in_turn([partial(work, model) for model in models]) for work in works[:TIMED]]
    q1, median, q3 = statistics.quantiles([dense / sparse for dense, sparse in times], n=4)
    dense, sparse = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "what": what,
        "milliseconds": {"dense": dense, "sparse": sparse, "ratio": {"q1": q1, "median": median, "q3": q3}},
        "same": sum(work(models[0]) == work(models[1]) for work in works),
        "requests": len(works),
        "layers": [
            f"{layer.name} ({layer.layer}): {layer.engine} {layer.layout}".strip()
            for layer in rnnprune.describe(models[1])
        ],
        "machine": describe_machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def in_turn(works: Sequence[Callable[[], Any]]) -> list[float]:
    """Milliseconds of each, the fastest of ROUNDS, their turns interleaved."""
    return [
        timing.min_us / 1000 for timing in interleave({str(i): work for i, work in enumerate(works)}, ROUNDS).values()
    ]
