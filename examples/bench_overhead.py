"""What one step costs when a stream is fed frame by frame: the bare call, and the call through the module.

    python examples/bench_overhead.py [ROUNDS]

Units: microseconds a step, medians over interleaved rounds of 200 steps, with the quartiles. H = 16 is nearly all
overhead; H = 256 shows how much of a real layer's step that is.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

import rnnprune
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.native_layer import LayerWeights, NativeLayer

STEPS = 200


def pruned(layer: nn.RNNBase) -> nn.RNNBase:
    """The layer with nine tenths of its matrices zero."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                parameter *= torch.rand_like(parameter) < 0.1
    return layer


def calls(kind: str, hidden: int) -> dict[str, Callable[[], object]]:
    """One step each: without the module, through it, and of torch's dense layer."""
    dense = pruned({"lstm": nn.LSTM, "gru": nn.GRU}[kind](hidden, hidden)).eval().requires_grad_(False)
    weights = LayerWeights(
        kind=kind,  # type: ignore[arg-type]
        weight_ih=csr_from_dense(dense.weight_ih_l0),
        weight_hh=csr_from_dense(dense.weight_hh_l0),
        bias_ih=dense.bias_ih_l0,
        bias_hh=dense.bias_hh_l0,
    )
    stream, frame = NativeLayer(weights).stream(), torch.randn(1, hidden)
    module = rnnprune.sparsify(pruned(type(dense)(hidden, hidden)), engine="native", threads=1)
    x = frame.unsqueeze(0)
    state, dense_state = module(x)[1], dense(x)[1]
    return {
        "bare call": lambda: stream.step(frame),
        "module": lambda: module(x, state),
        "torch dense": lambda: dense(x, dense_state),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    torch.set_num_threads(1)
    for kind in ("lstm", "gru"):
        for hidden in (16, 256):
            steps = calls(kind, hidden)
            took: dict[str, list[float]] = {name: [] for name in steps}
            with torch.inference_mode():
                for _ in range(rounds):
                    for name, step in steps.items():
                        start = time.perf_counter()
                        for _ in range(STEPS):
                            step()
                        took[name].append((time.perf_counter() - start) / STEPS * 1e6)
            told = []
            for name, times in took.items():
                low, middle, high = statistics.quantiles(times)
                told.append(f"{name} {middle:.2f} us ({low:.2f} to {high:.2f})")
            print(f"{kind} {hidden}: {', '.join(told)}")


if __name__ == "__main__":
    main()
