"""Run by test_triton_compiles.py in a process of its own: everything that a GPU would do but the launches.

The engine runs on CPU tensors; each launch goes the way of a real one through Triton's JIT up to machine code for an
H100, with ptxas, and ends there. Prints one JSON object per kernel compiled.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from rnnprune.kernels import triton_engine
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.native_layer import LayerWeights
from rnnprune.kernels.triton_engine import parse_variant
from rnnprune.kernels.triton_layer import TritonLayer

CPU = torch.device("cpu")
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
compiled: set[int] = set()


class H100:
    """What the JIT asks of a driver."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def compile_only(run: Any) -> Any:
    def wrapped(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:  # noqa: ARG001
        assert all(0 < size < 2**16 for size in grid[1:])
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        if id(kernel) not in compiled:
            compiled.add(id(kernel))
            ptx = kernel.asm["ptx"]
            report = {
                "kernel": self.fn.__name__,
                "constants": {name: kwargs[name] for name in ("U", "K", "B", "C", "WORDS", "num_warps")},
                "cubin": len(kernel.asm["cubin"]),
                "spills": ptx.count("ld.local"),
                "vector_loads": ptx.count("ld.global.v4"),
                "barriers": ptx.count("bar.sync"),
            }
            print(json.dumps(report))
        return kernel

    return wrapped


def sparse(rows: int, cols: int, kind: str) -> torch.Tensor:
    weight = torch.randn(rows, cols) * (torch.rand(rows, cols) < 0.1)
    return weight.half().float() if kind == "fp16" else weight


def main() -> None:
    warnings.simplefilter("error")
    triton.runtime.driver.set_active(H100())  # type: ignore[arg-type]
    JITFunction.run = compile_only(JITFunction.run)  # type: ignore[method-assign]
    triton_engine.is_interpreted = lambda: True  # type: ignore[assignment] - so that the CPU is let in
    hidden, inputs = 1088, 24
    for kind, variant, batches in (
        ("gru", "sell", (1, 8, 32)),
        ("lstm", "sell:fp16", (1, 8)),
        ("lstm", "16x1", (1, 8)),
        ("gru", "8x4:bf16", (1,)),
        ("rnn", "sell:bf16", (1, 2, 33)),
    ):
        weight_hh, weight_ih = (
            sparse(GATES[kind] * hidden, hidden, "fp32"),
            sparse(GATES[kind] * hidden, inputs, "fp32"),
        )
        weights = LayerWeights(kind, csr_from_dense(weight_ih), csr_from_dense(weight_hh))  # type: ignore[arg-type]
        layer = TritonLayer(weights, CPU, parse_variant(variant))
        for batch in batches:
            layer.run(torch.zeros(2, batch, inputs))
    matrix = csr_from_dense(sparse(2000, 500, "fp16"))
    for columns in (1, 3, 40):
        triton_engine.pack(matrix, device=CPU)(torch.zeros(500, columns))


if __name__ == "__main__":
    main()
