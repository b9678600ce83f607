"""Where masked weights stand in a live model: those the optimizer trains, one mask for all that share a storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnprune.architecture import Shape
from rnnprune.errors import UsageError
from rnnprune.kernels.csr import VALUE_DTYPES
from rnnprune.kernels.views import view_key
from rnnprune.pruning.masked_weight import MaskedWeight
from rnnprune.pruning.options import Selection
from rnnprune.pruning.selection import PRUNED_BY_DEFAULT, Choice, choose, roles_of_module


class Place(NamedTuple):
    """A name in the model under which a masked weight stands, the parameter found there, and its mask."""

    path: tuple[str, ...]
    parameter: nn.Parameter
    weight: MaskedWeight


def masked_weights(
    model: nn.Module, optimizer: torch.optim.Optimizer, selection: Selection
) -> tuple[list[MaskedWeight], list[Choice]]:
    """The weights to mask, one per storage, and the choice made for every parameter."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    given = (parameter for group in optimizer.param_groups for parameter in group["params"])
    trained = {id(parameter) for parameter in given if parameter.requires_grad}
    choices = [
        choice
        if not choice.pruned or id(parameters[choice.name]) in trained
        else choice._replace(pruned=False, reason="frozen: the optimizer does not train it")
        for choice in choose(roles_of_module(model), shapes_of(model), selection.include, selection.exclude)
    ]
    return tie(parameters, choices)


def shapes_of(model: nn.Module) -> dict[str, Shape]:
    """Name -> shape of every parameter; every name of a tied one."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}


def places_of(model: nn.Module, weights: Sequence[MaskedWeight]) -> list[Place]:
    """Every name of every masked weight; a tied one has several."""
    owners = {id(tensor): weight for weight in weights for tensor in weight.tensors}
    return [
        Place(tuple(name.split(".")), parameter, owners[id(parameter)])
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in owners
    ]


def require_same_parameters(model: nn.Module, places: Sequence[Place]) -> None:
    """Raise UsageError when the model holds other parameters by now, or moved or converted ones."""
    for path, parameter, weight in places:
        found: object = model
        for part in path:
            found = getattr(found, part, None)
        if found is not parameter:
            raise UsageError(
                f"{'.'.join(path)} is no longer the parameter that the Pruner was built on (load_state_dict with "
                "assign=True replaces them all), so neither Pruner nor optimizer reaches it; build both after loading, "
                "or load without assign"
            )
        weight.require_fit(parameter)


def with_zeros_told(choices: Sequence[Choice], places: Sequence[Place]) -> list[Choice]:
    """The choices, their reasons telling how much of a weight starts as dropped."""
    shares = {".".join(path): 1.0 - float(weight.mask.float().mean()) for path, _, weight in places}
    return [
        choice._replace(reason=f"{choice.reason}, {100 * shares[choice.name]:.0f} % zero before this run: those stay")
        if shares.get(choice.name)
        else choice
        for choice in choices
    ]


def tie(tensors: Mapping[str, Tensor], choices: Sequence[Choice]) -> tuple[list[MaskedWeight], list[Choice]]:
    """One masked weight per storage. A storage is pruned only when nothing that shares it is left out.

    Raises UsageError with the reasons when no weight is left.
    """
    weights, decided = [], []
    for shared in _sharing_memory(tensors, choices):
        if reasons := _reasons_against(shared, tensors):
            decided += [
                choice._replace(pruned=False, reason=reasons[choice.name]) if choice.pruned else choice
                for choice in shared
            ]
            continue
        distinct = {id(tensors[choice.name]): tensors[choice.name] for choice in shared}
        name, *more_names = (choice.name for choice in shared)
        weights.append(MaskedWeight(name, shared[0].role, list(distinct.values()), more_names))
        decided += shared
    if not weights:
        told = "; ".join(f"{choice.name}: {choice.reason}" for choice in decided if choice.role in PRUNED_BY_DEFAULT)
        raise UsageError(
            f"nothing left to prune ({told}); name matrices with --include, or let the optimizer train them"
        )
    return weights, decided


def _sharing_memory(tensors: Mapping[str, Tensor], choices: Sequence[Choice]) -> list[list[Choice]]:
    """The choices whose tensors overlap in memory, together."""
    spans = sorted((str(tensors[choice.name].device), *_span(tensors[choice.name]), choice.name) for choice in choices)
    sharers: list[list[str]] = []
    reached = ("", 0)
    for device, begin, end, name in spans:
        if (device, begin) < reached and device == reached[0]:
            sharers[-1].append(name)
        else:
            sharers.append([name])
            reached = (device, 0)
        reached = max(reached, (device, end))
    order = {choice.name: (place, choice) for place, choice in enumerate(choices)}
    return [
        [choice for _, choice in group] for group in sorted(sorted(order[name] for name in names) for names in sharers)
    ]


def _span(tensor: Tensor) -> tuple[int, int]:
    """Addresses of the first byte and of the one after the last."""
    if tensor.numel() == 0 or tensor.is_meta:
        return 0, 0
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _reasons_against(shared: Sequence[Choice], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> why this storage is not pruned; empty when it is."""
    first = tensors[shared[0].name]
    if first.numel() == 0 or first.dtype not in VALUE_DTYPES:
        why = "no weight in it" if first.numel() == 0 else f"{first.dtype} is no dtype that can be pruned"
        return {choice.name: why for choice in shared}
    if left_out := next((choice for choice in shared if not choice.pruned), None):
        return {choice.name: f"tied to {left_out.name} ({left_out.reason})" for choice in shared}
    layouts = {choice.name: view_key(tensors[choice.name]) for choice in shared}
    if len(set(layouts.values())) == 1:
        return {}
    others = {name: next(other for other in layouts if layouts[other] != layouts[name]) for name in layouts}
    return {name: f"tied to {other} (one storage, in another layout)" for name, other in others.items()}
