"""The truth: recurrent layers in plain torch, any float dtype, written like the equations.

T time, B batch, I input, H hidden, P projection, G gates; activations are [features, B], sequences [T, features, B].
The matrix products come in from outside, so one time loop serves every engine that has no layer of its own.
Gates are stacked as in torch: i f g o for an LSTM, r z n for a GRU; a GRU's b_hn stays inside the reset product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.architecture import Kind
from rnnprune.kernels.api import Engine, Product
from rnnprune.kernels.csr import Csr, csr_to_dense

State = tuple[Tensor, ...]  # (h,), or (h, c) for an LSTM; each [features, B]


@dataclass(frozen=True)
class Layer:
    """One direction of one recurrent layer: products for weight_ih, weight_hh and weight_hr, biases [G H, 1]."""

    kind: Kind
    weight_ih: Product
    weight_hh: Product
    bias_ih: Float[Tensor, "gates 1"]
    bias_hh: Float[Tensor, "gates 1"]
    weight_hr: Product | None = None
    nonlinearity: Literal["tanh", "relu"] = "tanh"


def rnn_step(layer: Layer, gates_x: Float[Tensor, "gates batch"], state: State) -> State:
    """h' = act(W_ih x + b_ih + W_hh h + b_hh)."""
    (h,) = state
    gates = gates_x + layer.weight_hh(h) + layer.bias_hh
    return (gates.tanh() if layer.nonlinearity == "tanh" else gates.relu(),)


def gru_step(layer: Layer, gates_x: Float[Tensor, "gates batch"], state: State) -> State:
    """r, z = sigmoid(...); n = tanh(x_n + r (W_hn h + b_hn)); h' = (1 - z) n + z h."""
    (h,) = state
    r_x, z_x, n_x = gates_x.chunk(3)
    r_h, z_h, n_h = (layer.weight_hh(h) + layer.bias_hh).chunk(3)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return ((1 - z) * n + z * h,)


def lstm_step(layer: Layer, gates_x: Float[Tensor, "gates batch"], state: State) -> State:
    """c' = f c + i g; h' = W_hr (o tanh(c')), W_hr the identity without a projection."""
    h, c = state
    i, f, g, o = (gates_x + layer.weight_hh(h) + layer.bias_hh).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if layer.weight_hr is None else layer.weight_hr(h), c)


STEPS: Mapping[Kind, Callable[[Layer, Tensor, State], State]] = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step}


def run_layer(
    layer: Layer, inputs: Float[Tensor, "time inputs batch"], state: State
) -> tuple[Float[Tensor, "time outputs batch"], State]:
    """The whole sequence: one input product for all T, then one step after another."""
    time, _, batch = inputs.shape
    all_inputs = inputs.transpose(0, 1).flatten(1)  # [I, T B]
    gates_x = (layer.weight_ih(all_inputs) + layer.bias_ih).reshape(-1, time, batch).unbind(1)
    step = STEPS[layer.kind]
    outputs = []
    for gates in gates_x:
        state = step(layer, gates, state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def pack(csr: Csr) -> Product:
    """The matrix, dense, in the dtype of its values."""
    dense = csr_to_dense(csr)
    return lambda x: dense @ x


ENGINE = Engine("reference", pack)
