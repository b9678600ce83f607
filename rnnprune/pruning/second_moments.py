"""Second moments of the gradients for optimizers that keep none, such as SGD: what saliency `fisher` reads.

v <- 0.999 v + 0.001 g^2      Adam's (Kingma & Ba, ICLR 2015), of the gradient without weight decay. Its bias is
                              not corrected: that would scale all of v alike, unless the optimizer is Adam with
                              another beta2 for some of the weights
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.pruning.masked_weight import MaskedWeight

DECAY = 0.999  # Adam's beta2


class SecondMoments:
    """tensors: name of a weight -> v in its shape, float32 at least; only of weights whose optimizer keeps none."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def state_of(self, weight: MaskedWeight, optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
        """What holds v: the optimizer's state for this weight, or this; neither does where no gradient ever came."""
        state = optimizer.state.get(weight.weight, {})
        own = self.tensors.get(weight.name)
        return state if own is None or "exp_avg_sq" in state else {"exp_avg_sq": own}

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

    def state_dict(self) -> dict[str, Tensor]:
        """A copy: the next step changes v in place."""
        return {name: v.clone() for name, v in self.tensors.items()}

    def load_state_dict(self, saved: Mapping[str, Tensor], weights: Iterable[MaskedWeight]) -> None:
        """Go on from `state_dict()`. Raises UsageError where a shape is not the weight's, and changes nothing then."""
        found = {weight.name: (saved[weight.name], weight.weight) for weight in weights if weight.name in saved}
        for name, (v, weight) in found.items():
            if v.shape != weight.shape:
                raise UsageError(
                    f"the saved second moments belong to another model: {name} is {list(weight.shape)}, "
                    f"and they are {list(v.shape)}"
                )
        self.tensors = {name: v.to(weight.device).clone() for name, (v, weight) in found.items()}

    def mask(self, weight: MaskedWeight) -> None:
        """What is dropped has none."""
        if weight.name in self.tensors:
            weight.apply_to(self.tensors[weight.name])
