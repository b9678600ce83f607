"""From whatever a checkpoint holds to one flat mapping of torch's parameter names to plain tensors.

Nesting, wrappers' prefixes, pruning masks and weight-drop names are undone; everything undone is told in a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from rnnprune.architecture import parse_recurrent_name
from rnnprune.errors import printable
from rnnprune.formats.kinds import MAX_NAME, Refused, shortened, too_many_names
from rnnprune.formats.lazy import Item, lazy, masked
from rnnprune.formats.plain import FREE_BYTES, nbytes

T = TypeVar("T")

WELL_KNOWN_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
OWN_KEY = "rnnprune"
_FOLD_MASKS = "apply `torch.nn.utils.prune.remove`"
_WRAPPERS = re.compile(r"\A(?:module\.)+")
_TRAINING_STATE = re.compile(r"optim|scheduler|scaler$", re.IGNORECASE)


class Named(NamedTuple):
    """Tensors by name, and what was done to get there."""

    tensors: dict[str, Item]
    notes: list[str]


def find_tensors(root: Mapping[Any, Any]) -> Named:
    """The mapping of names to tensors inside nested mappings; siblings are merged with their path as prefix."""
    notes: list[str] = []
    holds = _Holds()
    node, path = root, ""
    seen: set[int] = set()
    while True:
        if id(node) in seen:
            raise Refused(f"`{printable(path)}` contains itself", "save the model's `state_dict()`")
        seen.add(id(node))
        direct = [key for key, value in node.items() if isinstance(key, str) and isinstance(value, Item)]
        branches = _branches(node, holds)
        chosen = next((key for key in WELL_KNOWN_KEYS if key in branches), None)
        if chosen is None and not direct and len(branches) == 1:
            chosen = next(iter(branches))
        if chosen is None:
            break
        path = _checked(f"{path}.{chosen}" if path else chosen)
        if others := [*direct, *(key for key in branches if key != chosen)]:
            notes.append(f"The tensors of `{path}` were taken; left out beside it: {shortened(others)}.")
        node = branches[chosen]
    tensors: dict[str, Item] = {}
    _flatten(node, "", tensors, set())
    if refused := too_many_names(len(tensors)):
        raise refused
    return Named(tensors, notes)


class _Holds:
    """Whether a mapping holds a tensor at any depth; it looks into each mapping once, however often it is met."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __call__(self, node: Mapping[Any, Any]) -> bool:
        if id(node) not in self._known:
            self._known[id(node)] = False  # a circle back to here adds nothing
            direct = any(isinstance(key, str) and isinstance(value, Item) for key, value in node.items())
            self._known[id(node)] = direct or bool(_branches(node, self))
        return self._known[id(node)]


def _branches(node: Mapping[Any, Any], holds: _Holds) -> dict[str, Mapping[Any, Any]]:
    """The child mappings that hold weights: not optimizer, scheduler or scaler state, nor our own description."""
    return {
        key: value
        for key, value in node.items()
        if isinstance(key, str)
        and isinstance(value, Mapping)
        and key != OWN_KEY
        and not _TRAINING_STATE.search(key)
        and holds(value)
    }


def _flatten(node: Mapping[Any, Any], prefix: str, into: dict[str, Item], seen: set[int]) -> None:
    """Each mapping once, so that branches shared a thousand times over cannot multiply."""
    if id(node) in seen:
        return
    seen.add(id(node))
    for key, value in node.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Item):
            _put(into, prefix + key, value)
        elif isinstance(value, Mapping) and key != OWN_KEY and not _TRAINING_STATE.search(key):
            _flatten(value, _checked(f"{prefix}{key}."), into, seen)


def clean_names(tensors: Mapping[str, Item]) -> Named:
    """Undo torch.compile's `_orig_mod.`, DataParallel's `module.`, nn.utils.prune's masks and weight-drop's `_raw`."""
    notes: list[str] = []
    tensors = _without_wrappers(tensors, notes)
    tensors = _with_masks_applied(tensors, notes)
    tensors = _without_raw(tensors, notes)
    if parametrised := _parametrised(tensors):
        notes.append(
            f"{shortened(parametrised)}: only the parts of a parametrised weight are in the file; fold them with "
            "`torch.nn.utils.parametrize.remove_parametrizations` (or `remove_weight_norm`) and save again to prune it."
        )
    return Named(dict(tensors), notes)


def _without_wrappers(tensors: Mapping[str, Item], notes: list[str]) -> Mapping[str, Item]:
    compiled = {name: ".".join(part for part in name.split(".") if part != "_orig_mod") for name in tensors}
    if any(name != new for name, new in compiled.items()):
        notes.append("`_orig_mod.` (torch.compile) was taken out of the names.")
    wrapped = min(len(name) - len(_WRAPPERS.sub("", name)) for name in compiled.values()) if compiled else 0
    if wrapped:
        notes.append("`module.` (DataParallel) was taken off every name.")
    cleaned: dict[str, Item] = {}
    for name, tensor in tensors.items():
        _put(cleaned, compiled[name][wrapped:], tensor)
    return cleaned


def _with_masks_applied(tensors: Mapping[str, Item], notes: list[str]) -> Mapping[str, Item]:
    pruned = {
        name.removesuffix("_orig"): None  # a dict for a set that keeps its order
        for name in tensors
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in tensors
    }
    folded: dict[str, Item] = {}
    products: dict[tuple[int, int], Item] = {}  # tied weights under one mask stay tied
    budget = FREE_BYTES + sum({id(tensor): nbytes(tensor) for tensor in tensors.values()}.values())
    for name, tensor in tensors.items():
        base = name.removesuffix("_orig").removesuffix("_mask")
        if base not in pruned or name == base:
            _put(folded, name, tensor)
        elif name == f"{base}_orig":
            mask = tensors[f"{base}_mask"]
            if mask.shape != tensor.shape:
                shapes = f"{list(mask.shape)} against {list(tensor.shape)}"
                raise Refused(f"{base}_mask does not fit {base}_orig: {shapes}", _FOLD_MASKS)
            pair = (id(tensor), id(mask))
            if pair not in products:
                budget -= nbytes(tensor)
                if budget < 0:
                    raise Refused("few weights under many masks, which would take far more than the file", _FOLD_MASKS)
                products[pair] = masked(lazy(tensor), lazy(mask))
            _put(folded, base, products[pair])
    if pruned:
        notes.append(f"Masks of torch.nn.utils.prune were applied: {shortened(pruned)}.")
    return folded


def _without_raw(tensors: Mapping[str, Item], notes: list[str]) -> Mapping[str, Item]:
    dropped = {
        name: base
        for name in tensors
        if name.endswith("_raw") and parse_recurrent_name(base := name.removesuffix("_raw")) is not None
    }
    renamed: dict[str, Item] = {}
    for name, tensor in tensors.items():
        _put(renamed, dropped.get(name, name), tensor)
    if dropped:
        notes.append(f"`_raw` (weight drop) was taken off {shortened(dropped.values())}.")
    return renamed


def _parametrised(tensors: Mapping[str, Item]) -> list[str]:
    """Names that are one part of a weight: weight norm, spectral norm, torch.nn.utils.parametrize."""
    return [
        name
        for name in tensors
        if _is_original(name)
        or (name.endswith("_g") and f"{name[:-2]}_v" in tensors)
        or (name.endswith("_v") and f"{name[:-2]}_g" in tensors)
        or (name.endswith("_orig") and f"{name.removesuffix('_orig')}_u" in tensors)
    ]


def _is_original(name: str) -> bool:
    """Whether torch.nn.utils.parametrize would call it so: `fc.parametrizations.weight.original0`."""
    *path, last = name.split(".")
    return "parametrizations" in path[:-1] and re.fullmatch(r"original\d*", last) is not None


def split_ties(tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, str]]:
    """One name per tensor object, the first one met, and the further names as alias -> first name."""
    first_name: dict[int, str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        canonical = first_name.setdefault(id(tensor), name)
        if canonical != name:
            aliases[name] = canonical
    return {name: tensor for name, tensor in tensors.items() if name not in aliases}, aliases


def _put(into: dict[str, Item], name: str, tensor: Item) -> None:
    if name in into:
        found = f"two tensors are both called `{printable(name)}` once wrappers are undone"
        raise Refused(found, "save one of them only")
    into[_checked(name)] = tensor


def _checked(name: str) -> str:
    if len(name) > MAX_NAME:
        raise Refused(f"a name of {len(name)} characters, the limit is {MAX_NAME}: {printable(name)}", "shorten it")
    return name
