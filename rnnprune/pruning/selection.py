"""Which tensors are pruned, and for every tensor the reason why or why not."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from rnnprune.architecture import Role, Shape, parse_recurrent_name
from rnnprune.errors import UsageError

PRUNED_BY_DEFAULT: frozenset[Role] = frozenset({"input", "recurrent", "projection", "linear"})

_ROLE_OF_LEAF: Mapping[str, Role] = {"weight_ih": "input", "weight_hh": "recurrent", "weight_hr": "projection"}


class Choice(NamedTuple):
    """Whether one tensor is pruned, and why."""

    name: str
    role: Role
    pruned: bool
    reason: str


def roles_of_module(module: nn.Module) -> dict[str, Role]:
    """What every parameter of a live module is, by the type of the layer that owns it; every name of a tied one."""
    return {
        f"{prefix}.{leaf}" if prefix else leaf: _role_in_layer(layer, leaf, parameter)
        for prefix, layer in module.named_modules(remove_duplicate=False)
        for leaf, parameter in layer.named_parameters(recurse=False, remove_duplicate=False)
    }


def _role_in_layer(layer: nn.Module, leaf: str, parameter: nn.Parameter) -> Role:
    if "bias" in leaf:
        return "bias"
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        parsed = parse_recurrent_name(leaf)
        return _ROLE_OF_LEAF[parsed.tensor] if parsed else "unknown"
    if isinstance(layer, nn.Linear):
        return "linear" if leaf == "weight" else "unknown"  # weight_g of a weight norm is no matrix of weights
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(layer, nn.modules.conv._ConvNd):
        return "convolution"
    return "norm" if parameter.dim() == 1 and leaf == "weight" else "unknown"


def choose(
    roles: Mapping[str, Role],
    shapes: Mapping[str, Shape],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Choice]:
    """Decide for every tensor. `exclude` wins over `include`; both hold shell patterns such as `decoder.*`.

    Raises UsageError for a pattern that matches nothing, an included tensor that is no matrix, and when nothing is left
    to prune.
    """
    for flag, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            require_match(flag, pattern, roles)
    choices = [_choose_one(name, role, shapes[name], include, exclude) for name, role in roles.items()]
    if not any(choice.pruned for choice in choices):
        raise UsageError(
            "nothing to prune: no recurrent or linear weight was recognised or left; "
            "name the matrices with --include (`rnnprune report` lists every tensor with its reason)"
        )
    return choices


def _choose_one(name: str, role: Role, shape: Shape, include: Sequence[str], exclude: Sequence[str]) -> Choice:
    if pattern := _matching(name, exclude):
        return Choice(name, role, False, f"excluded by {pattern!r}")
    if pattern := _matching(name, include):
        if len(shape) != 2:
            raise UsageError(f"--include {pattern!r}: {name} has shape {list(shape)}; only matrices can be pruned")
        return Choice(name, role, True, f"included by {pattern!r}")
    if role in PRUNED_BY_DEFAULT:
        return Choice(name, role, True, f"{role} weight")
    if role == "unknown":
        remedy = "; --include prunes it" if len(shape) == 2 else ""
        return Choice(name, role, False, f"neither a recurrent nor a linear weight that is known{remedy}")
    return Choice(name, role, False, f"{role}: not pruned by default")


def _matching(name: str, patterns: Sequence[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def require_match(flag: str, pattern: str, names: Collection[str], what: str = "tensor") -> None:
    """Raise UsageError when a pattern matches none of the names."""
    if any(fnmatchcase(name, pattern) for name in names):
        return
    close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names)[:3]
    raise UsageError(f"--{flag} {pattern!r} matches no {what}; did you mean {', '.join(close)}?")
