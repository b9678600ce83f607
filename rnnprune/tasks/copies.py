"""A second model like the first: `copy.deepcopy` for every model that trains."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def copy_of(model: nn.Module) -> nn.Module:
    """A model of its own with the same values.

    What a layer computes from its parameters and keeps, as torch.nn.utils.weight_norm does, deepcopy refuses: the copy
    holds its value and computes it anew from its own parameters.
    """
    computed: dict[int, object] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed)
