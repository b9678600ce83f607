"""torch's dynamic quantization of a dense model: the one-line rival that pruning has to beat."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.runtime.options import DENSE, INT8
from rnnprune.runtime.sparsify import LEFT_DENSE, TWINS
from rnnprune.runtime.twin import Choice


def quantize(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose recurrent and linear layers hold int8 weights, and quantize what they are given.

    torch leaves some layers as they were (nn.RNN, projections); `describe` tells which. Raises UsageError where it
    leaves them all.
    """
    before = dict(model.named_modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a successor of the whole module
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model.eval(), set(TWINS), dtype=torch.qint8
        )
    left = []
    for name, layer in quantized.named_modules():
        if type(before.get(name)) not in TWINS:
            continue
        kept = type(layer) is type(before[name])
        left += [type(layer).__name__] if kept else []
        reason = f"torch has no dynamic int8 {type(layer).__name__} like this" if kept else "asked for"
        setattr(layer, LEFT_DENSE, Choice(DENSE if kept else INT8, reason, 0.0))
    if len(left) == sum(type(layer) in TWINS for layer in before.values()):
        raise UsageError(f"torch has no dynamic int8 {' or '.join(dict.fromkeys(left)) or 'of this model'}")
    return quantized


def stored_bytes(model: nn.Module) -> int:
    """What `torch.save` writes of the model's weights."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()
