"""Steps per second of two processes against one, same global batch, one core each.

    torchrun --standalone --nproc-per-node 2 examples/bench_scaling.py [--hidden 512] [--batch 64] [--time 50]

An LSTM is trained and pruned by the loop of `rnnprune finetune`, gloo between the processes, each on one thread and
pinned to a core of its own. In turns, so that what disturbs the machine meets all: one process takes some steps with
the whole batch while the other rests; both take as many with half of it each; both take as many with half the batch and
without a word to each other, which is what the machine would give if the exchange cost nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rnnprune import Pruner, Selection, plan_schedule
from rnnprune.training.loop import StepRecord, build_optimizer, train
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import ALONE, Workers, joined_workers

INPUT = 256


class Echo:
    """Made-up sequences, shared out among the processes as a task does it."""

    metric, goal = "mse", "min"

    def __init__(self, hidden: int, batch: int, time: int) -> None:
        self.hidden = hidden
        self.x = torch.randn(4, batch, time, INPUT, generator=torch.Generator().manual_seed(0))

    def build_model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.LSTM(INPUT, self.hidden, batch_first=True)

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> list[Tensor]:  # noqa: ARG002
        return [batch.chunk(world_size)[rank] for batch in self.x]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch)[0].square().mean()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:  # noqa: ARG002
        return {"mse": self.loss(model, self.x[0]).item()}


def training(task: Echo, steps: int, workers: Workers) -> Iterator[StepRecord]:
    model, recipe = task.build_model(), Recipe(steps)
    optimizer = build_optimizer(model, recipe)
    schedule = plan_schedule("cubic", steps)
    alike = Selection(scope="tensor")
    pruner = Pruner(model, optimizer, schedule, target=0.9, saliency="fisher", selection=alike, share=workers.share)
    return train(model, task, recipe, optimizer, steps, pruner, workers=workers)


def seconds_per_step(run: Iterator[StepRecord], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        next(run)
    return (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("hidden", 512), ("batch", 64), ("time", 50), ("steps", 5), ("rounds", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    told = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["LOCAL_RANK"])]})
    steps = told.steps * (told.rounds + 1)  # one round to warm up
    whole, half = (Echo(told.hidden, batch, told.time) for batch in (told.batch, told.batch // 2))
    with joined_workers("cpu") as workers:
        runs = {
            "1 process": training(whole, steps, ALONE),
            "2 processes": training(whole, steps, workers),
            "2 strangers": training(half, steps, ALONE),
        }
        rounds = []
        for _ in range(told.rounds + 1):
            row = []
            for name, run in runs.items():
                workers.any(False)  # all are here
                rests = name == "1 process" and not workers.is_first
                row.append(max(workers.gather(0.0 if rests else seconds_per_step(run, told.steps))))
            rounds.append(row)
        if workers.is_first:
            show(dict(zip(runs, zip(*rounds[1:], strict=True), strict=True)), told)


def show(seconds: dict[str, tuple[float, ...]], told: argparse.Namespace) -> None:
    print(f"LSTM {INPUT} -> {told.hidden}, {told.time} steps of time, batch {told.batch}, torch {torch.__version__}; "
          f"median of {told.rounds} rounds of {told.steps} optimizer steps (least to most)")  # fmt: skip
    for name, each in seconds.items():
        ratios = [alone / together for alone, together in zip(seconds["1 process"], each, strict=True)]
        milliseconds = spread([1e3 * value for value in each], 1)
        print(f"{name}: {milliseconds} ms a step, {spread(ratios, 2)} times the steps per second of 1 process")


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
