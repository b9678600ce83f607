"""What pruning adds to a training step: the same step with and without it, interleaved.

    python examples/bench_step.py [ROUNDS]

Two models: the GRU encoder and decoder of the g2p demo at its batch of 64 words, and an LSTM with 1024 units at 16
sequences of 50 steps. Mask updates fall as in a real run; every step's masking of weights and gradients is counted.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from rnnprune import Gradual, Pruner

sys.path.insert(0, str(Path(__file__).parent / "g2p_en"))
from g2p_task import Speller

LSTM_INPUT, LSTM_HIDDEN, LSTM_BATCH, LSTM_TIME = 512, 1024, 16, 50
WORDS, LETTERS, SOUNDS, VOCABULARY = 64, 8, 7, 74


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
) -> Callable[[], None]:
    model, loss = make()
    optimizer = torch.optim.Adam(model.parameters())
    pruner = Pruner(model, optimizer, Gradual(0, rounds // 2, 4 * rounds, frequency=100)) if prune else None

    def step() -> None:
        optimizer.zero_grad()
        loss(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if pruner is not None:
            pruner.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds; seconds per step, median")
    for name, make in (("g2p demo model", speller_loss), ("LSTM 1024", lstm_loss)):
        plain, pruned, again = (step_of(make, rounds, prune) for prune in (False, True, False))
        for step in (plain, pruned, again):
            step()
        times = [(seconds(plain), seconds(pruned), seconds(again)) for _ in range(rounds)]
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        mean = statistics.fmean(row[1] for row in times) / statistics.fmean(row[0] for row in times)
        print(
            f"{name}: without {medians[0]:.4f}, with {medians[1]:.4f}, ratio {medians[1] / medians[0]:.3f} "
            f"(of means, mask updates included: {mean:.3f}; without against without: {medians[2] / medians[0]:.3f})"
        )


if __name__ == "__main__":
    main()
