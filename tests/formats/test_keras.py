"""Keras weights in torch layers: the outputs are those of Keras 3.15 itself, written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rnnprune.errors import InputRefused
from rnnprune.formats.keras import from_keras

X = [[[0.13, -0.13], [0.64, 0.1], [-0.54, 0.36]]]
LSTM = (
    [[0.91, 0.66, -0.49, -0.89, -0.44, 0.03, -1.63, -0.15], [-0.87, -0.51, -0.38, -0.22, 0.29, 0.73, -0.09, 0.96]],
    [[-0.47, 0.25, 0.63, 0.07, -0.52, -0.65, -0.32, 0.15], [-0.71, -0.15, -0.11, 0.38, 0.15, 0.25, -0.46, -0.09]],
    [0.55, 1.05, -0.88, 1.06, 0.94, 0.55, 0.19, -0.22],
)
GRU = (
    [[1.02, 1.37, 1.26, 0.92, 0.25, -0.85], [-0.0, 0.46, -0.9, 0.28, 0.3, 0.49]],
    [[-0.83, -0.46, -0.31, -0.82, 1.22, -0.35], [0.23, -0.18, 1.11, 0.92, 0.44, -1.54]],
    [[0.04, 0.48, 0.7, -0.43, 1.28, -0.92], [-0.46, 0.65, 0.03, 1.4, 0.13, -0.44]],
)
RNN = ([[-0.26, -0.76], [-0.89, 0.44]], [[0.41, 0.91], [-0.53, 1.18]], [-0.2, 1.1])
KNOWN = {
    "lstm": (nn.LSTM, LSTM, [[0.218905, 0.130591], [0.122852, 0.242948], [0.319549, 0.395672]]),
    "gru": (nn.GRU, GRU, [[0.501894, -0.198395], [0.757619, -0.296829], [0.886428, -0.328862]]),
    "rnn": (nn.RNN, RNN, [[-0.117554, 0.737055], [-0.71348, 0.889672], [-0.815774, 0.968613]]),
}


def loaded(kind, kernel, recurrent, bias):
    layer = KNOWN[kind][0](2, 2, batch_first=True)
    arrays = [np.array(part) for part in (kernel, recurrent, bias)]
    layer.load_state_dict({f"{name}_l0": tensor for name, tensor in from_keras(kind, *arrays).items()})
    return layer(torch.tensor(X))[0]


@pytest.mark.parametrize("kind", KNOWN)
def test_torch_gives_what_keras_gave(kind):
    _, weights, outputs = KNOWN[kind]
    torch.testing.assert_close(loaded(kind, *weights), torch.tensor([outputs]), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("kind", "order"), [("lstm", [0, 1, 2, 3]), ("gru", [1, 0, 2])])
def test_a_cudnn_layer_has_each_gate_as_cudnn_reads_it_and_two_flat_biases(kind, order):
    layer = KNOWN[kind][0](3, 2)
    ih, hh, *biases = (part.detach().numpy().reshape(len(order), 2, -1)[order] for part in layer.parameters())
    kernel = np.hstack([gate.reshape(3, 2) for gate in ih])  # the bytes of [H, I] in a box of [I, H]
    recurrent = np.hstack(hh)
    flat = np.concatenate([bias.ravel() for bias in biases])
    for name, tensor in from_keras(kind, kernel, recurrent, flat).items():
        torch.testing.assert_close(tensor, getattr(layer, f"{name}_l0").data, atol=0, rtol=0)


def test_a_layer_without_bias_has_two_tensors():
    assert set(from_keras("lstm", np.array(LSTM[0]), np.array(LSTM[1]))) == {"weight_ih", "weight_hh"}


@pytest.mark.parametrize(
    ("kind", "kernel", "recurrent", "bias", "message"),
    [
        ("gru", (2, 6), (2, 6), (6,), "reset_after=False"),
        ("gru", (2, 8), (2, 6), None, r"kernel \[2, 8\] .* both need 6 columns"),
        ("lstm", (2, 8), (3, 8), None, "both need 12 columns"),
        ("lstm", (2, 8), (2, 8), (9,), r"bias \[9\] does not fit; expected \[8\], \[2, 8\] or \[16\]"),
    ],
)
def test_what_torch_cannot_hold_is_refused(kind, kernel, recurrent, bias, message):
    with pytest.raises(InputRefused, match=message):
        from_keras(kind, np.ones(kernel), np.ones(recurrent), None if bias is None else np.ones(bias))
