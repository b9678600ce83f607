"""Where a sparse layer begins to win: the figures behind RULES in rnnprune/runtime/choice.py.

    python examples/bench_choice.py --engine native

One row per layer and batch: time of the dense layer over time of its sparse twin (above 1: sparse is faster) at each
share of zeros, the best of many short rounds, dense and sparse in turn.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import nn

import rnnprune

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RECURRENT = (nn.LSTM, nn.GRU)
HIDDEN = (16, 32, 64, 128, 256, 512)
LINEAR = (64, 128, 256, 512, 1024)


def pruned(layer: nn.Module, sparsity: float) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                parameter *= torch.rand(parameter.shape, generator=generator) >= sparsity
    return layer.eval()


def ratio(dense: Callable[[], object], sparse: Callable[[], object], seconds: float) -> float:
    best = {dense: float("inf"), sparse: float("inf")}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call in best:
            began = time.perf_counter()
            call()
            best[call] = min(best[call], time.perf_counter() - began)
    return best[dense] / best[sparse]


def row(make: Callable[[], nn.Module], x: torch.Tensor, arguments: argparse.Namespace) -> str:
    cells = []
    for sparsity in SPARSITIES:
        dense = pruned(make(), sparsity)
        model = nn.Sequential(copy.deepcopy(dense))
        sparse = rnnprune.sparsify(model, engine=arguments.engine, threads=arguments.threads)[0]  # type: ignore[index]
        with torch.inference_mode():
            cells.append(f"{ratio(lambda: dense(x), lambda: sparse(x), arguments.seconds):5.2f}")  # noqa: B023
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", default="native")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="per figure")
    parser.add_argument("--hidden", type=int, nargs="*", default=HIDDEN)
    parser.add_argument("--linear", type=int, nargs="*", default=LINEAR)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'layer':34}" + "  ".join(f"{sparsity:5.0%}" for sparsity in SPARSITIES))
    for size in arguments.hidden:
        for kind in RECURRENT:
            for batch, steps in ((1, 1), (1, 50), (16, 50)):
                x = torch.randn(steps, batch, size)
                label = f"{kind.__name__} {size}, batch {batch}, {steps} steps"
                print(f"{label:34}" + row(lambda: kind(size, size), x, arguments), flush=True)  # noqa: B023
    for size in arguments.linear:
        for batch in (1, 16, 256):
            label = f"Linear {size}, batch {batch}"
            print(f"{label:34}" + row(lambda: nn.Linear(size, size), torch.randn(batch, size), arguments), flush=True)  # noqa: B023


if __name__ == "__main__":
    main()
