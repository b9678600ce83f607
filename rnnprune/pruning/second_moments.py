"""Second moments of the gradients for optimizers that keep none, such as SGD: what saliency `fisher` reads.

v <- 0.999 v + 0.001 g^2      Adam's (Kingma & Ba, ICLR 2015), without the correction of its bias, which scales
                              all of v alike
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnprune.pruning.masked_weight import MaskedWeight

DECAY = 0.999  # Adam's beta2


class SecondMoments:
    """tensors: name of a weight -> v in its shape, float32 at least; only of weights whose optimizer keeps none."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def state_of(self, weight: MaskedWeight, optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
        """The optimizer's state for this weight, with v in any case; empty where no gradient ever came."""
        state = optimizer.state.get(weight.weight, {})
        own = self.tensors.get(weight.name)
        return state if own is None or "exp_avg_sq" in state else {**state, "exp_avg_sq": own}

    @torch.no_grad()
    def update(self, weights: Iterable[MaskedWeight], optimizer: torch.optim.Optimizer) -> None:
        """With the gradients as a step begins: SGD with Nesterov's momentum changes them in place."""
        scale = getattr(optimizer, "grad_scale", None)  # of a fused optimizer under a GradScaler
        for weight in weights:
            if "exp_avg_sq" in optimizer.state.get(weight.weight, {}):
                self.tensors.pop(weight.name, None)  # Adam's first step was not known to be Adam's
            elif weight.weight.grad is not None:
                gradient = weight.weight.grad.to(torch.promote_types(weight.weight.dtype, torch.float32))
                if scale is not None:
                    gradient = gradient / scale
                v = self.tensors.setdefault(weight.name, torch.zeros_like(gradient))
                v.mul_(DECAY).addcmul_(gradient, gradient, value=1 - DECAY)

    def mask(self, weight: MaskedWeight) -> None:
        """What is dropped has none."""
        if weight.name in self.tensors:
            weight.apply_to(self.tensors[weight.name])
