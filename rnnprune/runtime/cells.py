"""The sparse twins of nn.RNNCell, nn.GRUCell, nn.LSTMCell and nn.Linear.

B batch, I input, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.kernels.api import Product
from rnnprune.kernels.native_layer import LayerWeights, NativeLayer, State
from rnnprune.runtime.direct import DirectCall
from rnnprune.runtime.engines import Runner, layout_of, make_product, make_runner
from rnnprune.runtime.twin import Choice, SparseTwin
from rnnprune.runtime.weights import SparseWeight

KINDS: Mapping[type, Kind] = {nn.RNNCell: "rnn", nn.GRUCell: "gru", nn.LSTMCell: "lstm"}


class Step(NamedTuple):
    """The runner of a cell, and the short way in where the engine has one."""

    runner: Runner
    direct: DirectCall | None


class SparseCell(SparseTwin[Step]):
    """One step of a recurrent layer: input [B, I] or [I]; state h, for an LSTM (h, c), of [B, H] or [H].

    Gives the new state. Raises UsageError for other shapes or dtypes, in training mode, and where a gradient is needed.
    """

    def __init__(
        self,
        dense: nn.RNNCellBase,
        tensors: Mapping[str, SparseWeight | nn.Parameter | None],
        choice: Choice,
        threads: int,
    ) -> None:
        super().__init__(dense, choice, threads)
        self.kind = KINDS[type(dense)]
        self.nonlinearity: Literal["tanh", "relu"] = "relu" if getattr(dense, "nonlinearity", "") == "relu" else "tanh"
        self.input_size, self.hidden_size, self.bias = dense.input_size, dense.hidden_size, dense.bias
        self.hold(tensors)

    def pack(self) -> Step:
        """The one direction of the one layer."""
        weights = LayerWeights(
            kind=self.kind,
            weight_ih=self.csr_of("weight_ih"),
            weight_hh=self.csr_of("weight_hh"),
            bias_ih=self.bias_of("bias_ih"),
            bias_hh=self.bias_of("bias_hh"),
            nonlinearity=self.nonlinearity,
        )
        runner = make_runner(weights, self.choice.engine, self.threads, self.device)
        return Step(runner, DirectCall([[runner]], cell=True) if isinstance(runner, NativeLayer) else None)

    @property
    def layout(self) -> str:
        """Of the recurrent matrix."""
        return layout_of(self.packed.runner)

    def forward(self, input: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None = None) -> Any:
        """The new state, in the shapes of the state given."""
        runner, direct = self.packed
        if direct is not None and not self.training and (found := direct(input, hx)) is not None:
            return found[1]
        self.check_input(input, self.input_size)
        if input.ndim not in (1, 2) or input.numel() == 0:
            raise UsageError(f"{self.name}: input has shape {list(input.shape)}, expected [B, I] or [I]")
        lead = input.shape[:-1]
        x = input if lead else input.unsqueeze(0)
        _, state = runner.run(x.unsqueeze(0).float(), self._state(hx, lead))
        state = tuple((part if lead else part[0]).to(self.dtype) for part in state)
        return state if self.kind == "lstm" else state[0]

    def extra_repr(self) -> str:
        """Sizes and engine, for print(module)."""
        return f"{self.kind}, {self.input_size}, {self.hidden_size}, engine={self.choice.engine}"

    def _state(self, hx: Tensor | tuple[Tensor, Tensor] | None, lead: torch.Size) -> State | None:
        if hx is None:
            return None
        shapes = [[*lead, self.hidden_size]] * (2 if self.kind == "lstm" else 1)
        state = self.check_state(hx, shapes)
        return tuple((part if lead else part.unsqueeze(0)).float().contiguous() for part in state)


class SparseLinear(SparseTwin[Product]):
    """y = x W^T + b for x [..., in_features], as nn.Linear. Raises UsageError as SparseCell does."""

    def __init__(
        self,
        dense: nn.Linear,
        tensors: Mapping[str, SparseWeight | nn.Parameter | None],
        choice: Choice,
        threads: int,
    ) -> None:
        super().__init__(dense, choice, threads)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.hold(tensors)

    def pack(self) -> Product:
        """The product with `weight`."""
        return make_product(self.csr_of("weight"), self.choice.engine, self.threads, self.device)

    @property
    def layout(self) -> str:
        """Of `weight`."""
        return layout_of(self.packed)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        self.check_input(input, self.in_features)
        shape = (*input.shape[:-1], self.out_features)
        bias = self.bias_of("bias")
        if input.numel() == 0:
            return input.new_zeros(shape) if bias is None else bias.expand(shape).clone()
        x = input.detach().reshape(-1, self.in_features).float()
        y = self.packed(x.T.contiguous()).T if len(x) > 1 else self.packed(x.reshape(-1, 1)).view(1, -1)
        return (y.contiguous() if bias is None else y + bias).view(shape).to(self.dtype)

    def extra_repr(self) -> str:
        """Sizes and engine, for print(module)."""
        return f"{self.in_features}, {self.out_features}, engine={self.choice.engine}"
