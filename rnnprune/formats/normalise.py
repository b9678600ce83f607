"""From whatever a checkpoint holds to one flat mapping of torch's parameter names to plain tensors.

Nesting, wrappers' prefixes, pruning masks and weight-drop names are undone; everything undone is told in a note.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnprune.architecture import parse_recurrent_name
from rnnprune.formats.kinds import COPY_AGAIN

WELL_KNOWN_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
OWN_KEY = "rnnprune"
FREE_COPY_BYTES = 2**26
COPIED_BYTES_PER_FILE_BYTE = 4
_TRAINING_STATE = re.compile(r"optim|scheduler|scaler$", re.IGNORECASE)


class Refused(ValueError):
    """What was found and what to do about it; the caller adds the file's name."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found, self.remedy = found, remedy


class Named(NamedTuple):
    """Tensors by name, and what was done to get there."""

    tensors: dict[str, Tensor]
    notes: list[str]


def find_tensors(root: Mapping[Any, Any]) -> Named:
    """The mapping of names to tensors inside nested mappings; siblings are merged with their path as prefix."""
    notes: list[str] = []
    holds = _Holds()
    node, path = root, ""
    while True:
        direct = [key for key, value in node.items() if isinstance(key, str) and isinstance(value, Tensor)]
        branches = _branches(node, holds)
        chosen = next((key for key in WELL_KNOWN_KEYS if key in branches), None)
        if chosen is None and not direct and len(branches) == 1:
            chosen = next(iter(branches))
        if chosen is None:
            break
        path = f"{path}.{chosen}" if path else chosen
        if others := [*direct, *(key for key in branches if key != chosen)]:
            notes.append(f"The tensors of `{path}` were taken; left out beside it: {_shortened(others)}.")
        node = branches[chosen]
    tensors: dict[str, Tensor] = {}
    _flatten(node, "", tensors, set())
    return Named(tensors, notes)


class _Holds:
    """Whether a mapping holds a tensor at any depth; remembers, so that shared and circular branches cost nothing."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __call__(self, node: Mapping[Any, Any]) -> bool:
        if id(node) not in self._known:
            self._known[id(node)] = False  # a circle back to here adds nothing
            direct = any(isinstance(key, str) and isinstance(value, Tensor) for key, value in node.items())
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


def _flatten(node: Mapping[Any, Any], prefix: str, into: dict[str, Tensor], seen: set[int]) -> None:
    """Each mapping once, so that branches shared a thousand times over cannot multiply."""
    if id(node) in seen:
        return
    seen.add(id(node))
    for key, value in node.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Tensor):
            _put(into, prefix + key, value)
        elif isinstance(value, Mapping) and key != OWN_KEY and not _TRAINING_STATE.search(key):
            _flatten(value, f"{prefix}{key}.", into, seen)


def plain_tensors(
    tensors: Mapping[str, Tensor], file_bytes: int, storage_sizes: Collection[int] | None = None
) -> dict[str, Tensor]:
    """Detached, dense, contiguous tensors; names that showed one and the same view get one and the same object.

    storage_sizes: bytes of the storages that the file's directory lists, where it has one; a mapped read would take
    a storage that claims more from whatever bytes lie behind it.
    """
    if problems := [f"{name} is {what}" for name, tensor in tensors.items() if (what := _unreadable(tensor))]:
        raise Refused(
            _shortened(problems),
            "save the float model (before quantization) with dense tensors (`tensor.to_dense()`)",
        )
    for name, tensor in tensors.items():
        if storage_sizes is not None and (size := tensor.untyped_storage().nbytes()) not in storage_sizes:
            raise Refused(
                f"a damaged torch checkpoint ({name} claims a storage of {size} bytes, which is not there)", COPY_AGAIN
            )
    copies = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values() if not tensor.is_contiguous())
    if copies > FREE_COPY_BYTES + COPIED_BYTES_PER_FILE_BYTE * file_bytes:
        raise Refused(
            f"views that would take {copies} bytes once laid out, far more than the file's {file_bytes}",
            "save it again with `tensor.clone()` for each tensor",
        )
    by_view: dict[tuple[Any, ...], Tensor] = {}
    return {name: by_view.setdefault(_view_key(name, t), t.detach().contiguous()) for name, t in tensors.items()}


def _unreadable(tensor: Tensor) -> str | None:
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "sparse or nested"
    return "on the meta device, without data" if tensor.is_meta else None


def _view_key(name: str, tensor: Tensor) -> tuple[Any, ...]:
    if tensor.numel() == 0:
        return (name,)  # empty tensors share an address without being tied
    storage = tensor.untyped_storage().data_ptr()
    return (storage, tensor.storage_offset(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def clean_names(tensors: Mapping[str, Tensor]) -> Named:
    """Undo torch.compile's `_orig_mod.`, DataParallel's `module.`, nn.utils.prune's masks and weight-drop's `_raw`."""
    notes: list[str] = []
    tensors = _without_wrappers(tensors, notes)
    tensors = _with_masks_applied(tensors, notes)
    tensors = _without_raw(tensors, notes)
    if parametrised := _parametrised(tensors):
        notes.append(
            f"{_shortened(parametrised)}: only the parts of a parametrised weight are in the file; fold them with "
            "`torch.nn.utils.parametrize.remove_parametrizations` (or `remove_weight_norm`) and save again to prune it."
        )
    return Named(dict(tensors), notes)


def _without_wrappers(tensors: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor]:
    compiled = {name: ".".join(part for part in name.split(".") if part != "_orig_mod") for name in tensors}
    if any(name != new for name, new in compiled.items()):
        notes.append("`_orig_mod.` (torch.compile) was taken out of the names.")
    new_names = compiled
    while new_names and all(name.startswith("module.") for name in new_names.values()):
        new_names = {name: new.removeprefix("module.") for name, new in new_names.items()}
    if new_names is not compiled:
        notes.append("`module.` (DataParallel) was taken off every name.")
    cleaned: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        _put(cleaned, new_names[name], tensor)
    return cleaned


def _with_masks_applied(tensors: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor]:
    masked = [
        name.removesuffix("_orig")
        for name in tensors
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in tensors
    ]
    folded: dict[str, Tensor] = {}
    products: dict[tuple[int, int], Tensor] = {}  # tied weights under one mask stay tied
    for name, tensor in tensors.items():
        base = name.removesuffix("_orig").removesuffix("_mask")
        if base not in masked or name == base:
            _put(folded, name, tensor)
        elif name == f"{base}_orig":
            mask = tensors[f"{base}_mask"]
            if mask.shape != tensor.shape:
                shapes = f"{list(mask.shape)} against {list(tensor.shape)}"
                raise Refused(f"{base}_mask does not fit {base}_orig: {shapes}", "apply `torch.nn.utils.prune.remove`")
            product = products.setdefault((id(tensor), id(mask)), tensor.masked_fill(mask == 0, 0))
            _put(folded, base, product)
    if masked:
        notes.append(f"Masks of torch.nn.utils.prune were applied: {_shortened(masked)}.")
    return folded


def _without_raw(tensors: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor]:
    dropped = {
        name: base
        for name in tensors
        if name.endswith("_raw") and parse_recurrent_name(base := name.removesuffix("_raw")) is not None
    }
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        _put(renamed, dropped.get(name, name), tensor)
    if dropped:
        notes.append(f"`_raw` (weight drop) was taken off {_shortened(dropped.values())}.")
    return renamed


def _parametrised(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names that are one part of a weight: weight norm, spectral norm, torch.nn.utils.parametrize."""
    return [
        name
        for name in tensors
        if re.search(r"(^|\.)parametrizations\..*\.original\d*$", name)
        or (name.endswith("_g") and f"{name[:-2]}_v" in tensors)
        or (name.endswith("_v") and f"{name[:-2]}_g" in tensors)
        or (name.endswith("_orig") and f"{name.removesuffix('_orig')}_u" in tensors)
    ]


def split_ties(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One name per tensor object, the first one met, and the further names as alias -> first name."""
    first_name: dict[int, str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        canonical = first_name.setdefault(id(tensor), name)
        if canonical != name:
            aliases[name] = canonical
    return {name: tensor for name, tensor in tensors.items() if name not in aliases}, aliases


def _put(into: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in into:
        raise Refused(f"two tensors are both called `{name}` once wrappers are undone", "save one of them only")
    into[name] = tensor


def _shortened(names: Iterable[str]) -> str:
    """The first five names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
