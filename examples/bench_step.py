"""What pruning adds to a training step: the same step with and without it, interleaved.

    python examples/bench_step.py [ROUNDS]

Two models: the GRU encoder and decoder of the g2p demo at its batch of 32 words, and an LSTM with 1024 units at 16
sequences of 50 steps. From a quarter of the rounds to three quarters every fifth step updates the masks, by the fisher
saliency (in the demo every fiftieth does); such steps are told apart.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from rnnprune import Cubic, Pruner, Selection

sys.path.insert(0, str(Path(__file__).parent / "g2p_en"))
from g2p_task import Speller

LSTM_INPUT, LSTM_HIDDEN, LSTM_BATCH, LSTM_TIME = 512, 1024, 16, 50
WORDS, LETTERS, SOUNDS, VOCABULARY = 32, 8, 7, 74


def speller_loss() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    letters, sounds = torch.randint(3, 29, (WORDS, LETTERS)), torch.randint(4, VOCABULARY, (WORDS, SOUNDS))
    return Speller(VOCABULARY), lambda model: nn.functional.cross_entropy(
        model(letters, sounds).flatten(0, 1), sounds.flatten()
    )


def lstm_loss() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    x = torch.randn(LSTM_TIME, LSTM_BATCH, LSTM_INPUT)
    return nn.LSTM(LSTM_INPUT, LSTM_HIDDEN), lambda model: model(x)[0].square().mean()


def step_of(
    make: Callable[[], tuple[nn.Module, Callable[[nn.Module], Tensor]]], rounds: int, prune: bool
) -> Callable[[], bool]:
    """A training step; it says whether the masks were updated."""
    model, loss = make()
    optimizer = torch.optim.Adam(model.parameters())
    schedule = Cubic(rounds // 4, 3 * rounds // 4, frequency=5)
    alike = Selection(scope="tensor")
    pruner = Pruner(model, optimizer, schedule, target=0.9, saliency="fisher", selection=alike) if prune else None

    def step() -> bool:
        optimizer.zero_grad()
        loss(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return pruner is not None and pruner.step() is not None

    return step


def timed(step: Callable[[], bool]) -> tuple[float, bool]:
    """Its seconds, and what it says."""
    began = time.perf_counter()
    updated = step()
    return time.perf_counter() - began, updated


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds; medians")
    for name, make in (("g2p demo model", speller_loss), ("LSTM 1024", lstm_loss)):
        steps = [step_of(make, rounds, prune) for prune in (False, True, False)]
        for step in steps:
            step()
        plain, pruned, again = zip(*([timed(step) for step in steps] for _ in range(rounds)), strict=True)
        without, without_again = (statistics.median(seconds for seconds, _ in times) for times in (plain, again))
        between, at_updates = (
            statistics.median(seconds for seconds, updated in pruned if updated is at) / without for at in (False, True)
        )
        print(
            f"{name}: {1000 * without:.1f} ms without; with pruning {between:.3f} of that, {at_updates:.3f} at "
            f"the {sum(updated for _, updated in pruned)} steps that update masks; without again "
            f"{without_again / without:.3f}"
        )


if __name__ == "__main__":
    main()
