"""Recurrent weights of Keras and cuDNN layers, as torch names and orders them.

Keras stores `kernel` [I, G*H], `recurrent_kernel` [H, G*H] and `bias`, with the gates of a GRU as z r h (torch: r z n)
and those of an LSTM as i f c o (torch: i f g o). CuDNNLSTM and CuDNNGRU have boxes of the same shapes, but each gate's
matrix lies in them as cuDNN reads it: [H, I], row by row (Keras 2, `_convert_rnn_weights` in its saving.py). Reading
the .h5 file is the caller's (h5py); see examples/textgenrnn.

I input, H hidden, G gates: 1, 3 (GRU) or 4 (LSTM).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.architecture import GATES, Kind
from rnnprune.errors import InputRefused

_GATE_ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}  # torch's gates, by their place in Keras


def from_keras(
    kind: Kind,
    kernel: Float[np.ndarray, "input columns"],
    recurrent_kernel: Float[np.ndarray, "hidden gates"],
    bias: Float[np.ndarray, " *gates"] | None = None,
) -> dict[str, Tensor]:
    """`weight_ih` [G*H, I], `weight_hh` [G*H, H], and with a bias `bias_ih`, `bias_hh` [G*H], all float32.

    bias: [G*H] as Keras writes it, [2, G*H] of a GRU with reset_after=True, [2*G*H] of CuDNNLSTM and CuDNNGRU, which
    Keras knows by that too. Add `_l0` to the names for a layer. Raises InputRefused for shapes that do not fit
    together, and for a GRU with reset_after=False, which computes what no GRU of torch or cuDNN can; without a bias
    that cannot be seen, so ask its configuration.
    """
    gates, hidden = len(GATES[kind]), len(recurrent_kernel)
    rows = gates * hidden
    if kernel.shape[1] != rows or recurrent_kernel.shape[1] != rows:
        raise InputRefused(
            f"{kind}: kernel {list(kernel.shape)} and recurrent_kernel {list(recurrent_kernel.shape)} do not fit: with "
            f"{hidden} units both need {rows} columns"
        )
    if bias is not None and bias.shape == (2 * rows,):
        kernel, recurrent_kernel = _unboxed(kernel, gates), _unboxed(recurrent_kernel, gates)
    tensors = {"weight_ih": kernel.T, "weight_hh": recurrent_kernel.T}
    if bias is not None:
        tensors |= _biases(kind, bias, rows)
    return {name: _reordered(kind, array, hidden) for name, array in tensors.items()}


def _unboxed(box: np.ndarray, gates: int) -> np.ndarray:
    """[I, G*H] with the rows of [H, I] in each gate's columns -> [I, G*H] as layers other than cuDNN's have it."""
    return np.hstack([gate.reshape(gate.shape[::-1]).T for gate in np.hsplit(box, gates)])


def _biases(kind: Kind, bias: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    if bias.shape in {(2 * rows,), (2, rows)}:
        return dict(zip(("bias_ih", "bias_hh"), bias.reshape(2, rows), strict=True))
    if bias.shape != (rows,):
        raise InputRefused(
            f"{kind}: bias {list(bias.shape)} does not fit; expected [{rows}], [2, {rows}] or [{2 * rows}]"
        )
    if kind == "gru":
        raise InputRefused(
            "gru: one bias per gate, so this layer has reset_after=False and applies the reset gate before the "
            "product; torch and cuDNN apply it after: train the layer again with reset_after=True"
        )
    return {"bias_ih": bias, "bias_hh": np.zeros_like(bias)}


def _reordered(kind: Kind, array: np.ndarray, hidden: int) -> Tensor:
    by_gate = array.reshape(len(GATES[kind]), hidden, *array.shape[1:])
    return torch.from_numpy(by_gate[list(_GATE_ORDER[kind])].reshape(array.shape).astype(np.float32))
