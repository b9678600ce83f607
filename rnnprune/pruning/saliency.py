"""How much a weight matters: a saliency is a function of a parameter and the optimizer's state for it.

    magnitude   |w|            Narang et al., ICLR 2017
    fisher      |w| sqrt(v)    v = Adam's second moment (see second_moments.py for other optimizers), a running
                               diagonal estimate of the loss's curvature: its square is twice the rise in loss of
                               Optimal Brain Damage (LeCun et al., 1989)

Both are computed in float32 at least, whatever the dtype of the weight. Equal scores are ranked by |w|, then by index:
under `fisher` whole columns tie where an input is constant, and everything whose v is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.pruning.options import SaliencyName

Saliency = Callable[[Tensor, Mapping[str, Any]], Tensor]


def magnitude(weight: Float[Tensor, "*shape"], state: Mapping[str, Any]) -> Float[Tensor, "*shape"]:  # noqa: ARG001
    """|w|."""
    return _at_least_float32(weight.detach()).abs()


def fisher(weight: Float[Tensor, "*shape"], state: Mapping[str, Any]) -> Float[Tensor, "*shape"]:
    """|w| sqrt(v), v the running mean of squared gradients in `state["exp_avg_sq"]`."""
    second_moment = state.get("exp_avg_sq")
    if second_moment is None:
        raise UsageError(
            "saliency 'fisher' reads second moments of the gradients, and there are none of this weight: no gradient "
            "came before the cut; exclude it, or use saliency 'magnitude'"
        )
    if second_moment.dtype == torch.float16 and not second_moment.any():
        raise UsageError(
            "saliency 'fisher' finds every second moment zero: in float16 the squares of small gradients vanish; "
            "keep the weights in float32 (autocast computes in half precision all the same) or bfloat16, or use "
            "saliency 'magnitude'"
        )
    return _at_least_float32(weight.detach()).abs() * _at_least_float32(second_moment).sqrt()


SALIENCIES: Mapping[SaliencyName, Saliency] = {"magnitude": magnitude, "fisher": fisher}


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
