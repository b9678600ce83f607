"""What the sparse modules ask of an engine: a runner for each direction of a layer, a product for each matrix.

T time, B batch, I input, H hidden, O output (P with a projection, else H). Sequences are [T, B, I], states [B, O] and,
for the c of an LSTM, [B, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.kernels import native, reference, scipy_csr, torch_csr, triton_engine
from rnnprune.kernels.api import Engine, Product
from rnnprune.kernels.csr import Csr
from rnnprune.kernels.native_layer import LayerWeights, Layouts, NativeLayer, State
from rnnprune.kernels.triton_layer import TritonLayer
from rnnprune.runtime.layouts import best_layout
from rnnprune.runtime.options import TRITON

PRODUCT_ENGINES: Mapping[str, Engine] = {
    engine.name: engine for engine in (reference.ENGINE, torch_csr.ENGINE, scipy_csr.ENGINE)
}


@runtime_checkable
class Runner(Protocol):
    """One direction of one recurrent layer, packed and ready."""

    def run(
        self,
        x: Float[Tensor, "time batch inputs"],
        state: State | None = None,
        reverse: bool = False,
        out: Float[Tensor, "time batch outputs"] | None = None,
    ) -> tuple[Float[Tensor, "time batch outputs"], State]:
        """Outputs in the order of x and the last state; `reverse` begins at the end. No state means zeros."""


class ProductLayer:
    """A Runner for the engines that only multiply: the time loop of kernels/reference.py around their products."""

    def __init__(self, weights: LayerWeights, engine: Engine) -> None:
        gates, self.output_size = weights.weight_hh.shape
        self.hidden_size = self.output_size if weights.weight_hr is None else weights.weight_hr.shape[1]
        zero = torch.zeros(gates, 1)
        self.layer = reference.Layer(
            kind=weights.kind,
            weight_ih=engine.pack(weights.weight_ih),
            weight_hh=engine.pack(weights.weight_hh),
            bias_ih=zero if weights.bias_ih is None else weights.bias_ih.detach().unsqueeze(1),
            bias_hh=zero if weights.bias_hh is None else weights.bias_hh.detach().unsqueeze(1),
            weight_hr=None if weights.weight_hr is None else engine.pack(weights.weight_hr),
            nonlinearity=weights.nonlinearity,
        )

    def run(
        self,
        x: Float[Tensor, "time batch inputs"],
        state: State | None = None,
        reverse: bool = False,
        out: Float[Tensor, "time batch outputs"] | None = None,
    ) -> tuple[Float[Tensor, "time batch outputs"], State]:
        """See Runner."""
        sizes = (self.output_size, self.hidden_size)[: 2 if self.layer.kind == "lstm" else 1]
        before = tuple(x.new_zeros(x.shape[1], size) for size in sizes) if state is None else state
        steps = (x.flip(0) if reverse else x).transpose(1, 2)
        y, after = reference.run_layer(self.layer, steps, tuple(part.T.contiguous() for part in before))
        y = (y.flip(0) if reverse else y).transpose(1, 2)
        return y if out is None else out.copy_(y), tuple(part.T.contiguous() for part in after)


def make_runner(weights: LayerWeights, engine: str, threads: int, device: torch.device) -> Runner:
    """Pack one direction of a layer for an engine (never `auto`). UsageError where the engine cannot run here."""
    if engine == TRITON:
        return TritonLayer(weights, device)
    if engine != "native":
        return ProductLayer(weights, PRODUCT_ENGINES[engine])
    layouts = Layouts(
        weight_ih=best_layout(weights.weight_ih, "sell8"),
        weight_hh=best_layout(weights.weight_hh, "auto"),
        weight_hr="sell8" if weights.weight_hr is None else best_layout(weights.weight_hr, "sell8"),
    )
    return NativeLayer(weights, layouts, threads)


def make_product(csr: Csr, engine: str, threads: int, device: torch.device) -> Product:
    """Pack one matrix for an engine: [cols, B] -> [rows, B]."""
    if engine == TRITON:
        return triton_engine.pack(csr, device=device)
    if engine != "native":
        return PRODUCT_ENGINES[engine].pack(csr)
    return native.pack(csr, best_layout(csr, "auto"), threads)


def layout_of(packed: Runner | Product) -> str:
    """The layout at batch 1 (`sell8`, `16x1`), of a layer that of weight_hh; "" for an engine with only one."""
    return (
        packed.runs(1) if isinstance(packed, NativeLayer | native.Packed | TritonLayer | triton_engine.Packed) else ""
    )
