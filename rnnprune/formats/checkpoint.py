"""The safe checkpoint reader: any dense checkpoint of torch or numpy in, names and tensors out, no code run.

torch files are read with `weights_only=True` alone. There is no fallback: the fallback is the hole.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnprune.architecture import Shape
from rnnprune.errors import InputRefused
from rnnprune.formats.container import (
    check_aliases,
    dump_json,
    in_order,
    parse_json_object,
    plain_data_problem,
    read_container,
)
from rnnprune.formats.kinds import (
    COPY_AGAIN,
    Kind,
    Refused,
    detect_kind,
    names_code,
    refusal,
    storage_sizes,
    unknown_protocol,
)
from rnnprune.formats.lazy import LazyTensor, MappedFile, lazy
from rnnprune.formats.legacy import largest_storage
from rnnprune.formats.normalise import OWN_KEY, clean_names, find_tensors, split_ties
from rnnprune.formats.npz import read_npz
from rnnprune.formats.plain import nbytes, plain_tensors
from rnnprune.formats.sparse import is_sparse_file, lazily_dense, read_sparse

FREE_METADATA = 2**20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds, under torch's own names.

    stored: canonical names only, in the dtype of the file, to be read slab by slab.
    aliases: further names of tied tensors -> their name in `tensors`.
    metadata: the plain dict that rnnprune left in its own checkpoints, {} in anyone else's.
    notes: what was normalised, one sentence each.
    """

    path: Path
    kind: Kind
    stored: dict[str, LazyTensor]
    aliases: dict[str, str]
    metadata: dict[str, Any]
    notes: tuple[str, ...]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All of them, contiguous, on the CPU; file-backed where the kind allows."""
        return {name: tensor.whole() for name, tensor in self.stored.items()}

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of every tensor, tied ones under each of their names."""
        shapes = {name: tensor.shape for name, tensor in self.stored.items()}
        return shapes | {alias: shapes[name] for alias, name in self.aliases.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors under every one of their names, as `load_state_dict(strict=True)` wants them."""
        return self.tensors | {alias: self.tensors[name] for alias, name in self.aliases.items()}


@dataclass(frozen=True)
class _Content:
    """A file as it was stored, before names are normalised; held_bytes is its size, unpacked."""

    tree: Mapping[Any, Any]
    metadata: dict[str, Any]
    notes: list[str]
    held_bytes: int


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a dense checkpoint; InputRefused names the file, what was found and the conversion to run.

    Accepted: safetensors (our sparse files too, made dense), torch zip, legacy torch pickle, numpy .npz. Raises
    UsageError when there is no such file.
    """
    found = open_checkpoint(Path(path))
    _ = found.tensors  # now, so that a damaged member is refused here
    return found


def open_checkpoint(path: Path) -> Checkpoint:
    """The same with its tensors unread; those of an .npz may be refused when they are read."""
    kind = detect_kind(path)
    try:
        content = _read(path, kind)
        found = find_tensors(content.tree)
        sizes = storage_sizes(path) if kind == "torch zip" else None
        tensors = [tensor for tensor in found.tensors.values() if isinstance(tensor, Tensor)]
        plain = plain_tensors(found.tensors, MappedFile(path, tensors), content.held_bytes, sizes)
        cleaned = clean_names(plain)
    except Refused as refused:
        raise refusal(path, refused.found, refused.remedy) from refused
    except RecursionError as error:
        raise refusal(path, "mappings nested thousands deep", "save a flat state dict") from error
    stored, aliases = split_ties({name: lazy(item) for name, item in cleaned.tensors.items()})
    if not stored:
        raise refusal(path, "no named tensors in it", "save the model's `state_dict()`")
    notes = (*content.notes, *found.notes, *cleaned.notes)
    return Checkpoint(path, kind, stored, aliases, content.metadata, notes)


def _read(path: Path, kind: Kind) -> _Content:
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "npz":
        tensors, notes = read_npz(path)
        return _Content(tensors, {}, notes, sum(map(nbytes, tensors.values())))
    tree = _load_torch(path, kind)
    if not isinstance(tree, Mapping):
        raise refusal(path, f"a {type(tree).__name__} instead of named tensors", "save the model's `state_dict()`")
    own = tree.get(OWN_KEY)
    return _Content(tree, _plain(path, own) if isinstance(own, dict) else {}, [], path.stat().st_size)


def _plain(path: Path, own: dict[str, Any]) -> dict[str, Any]:
    """Our own description, which later goes into JSON; whoever wrote anything else there was not rnnprune."""
    problem = plain_data_problem(own, FREE_METADATA + path.stat().st_size)
    try:
        if problem is None:
            dump_json(own)
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error)
    if problem is not None:
        raise refusal(path, f"a `{OWN_KEY}` entry that is not plain data ({problem})", "save the `state_dict()` alone")
    return own


def _read_safetensors(path: Path) -> _Content:
    if is_sparse_file(path):
        sparse = read_sparse(path)
        note = "This is a sparse file; its matrices were made dense again."
        dense = lazily_dense(sparse)
        held_bytes = sum(nbytes(dense[name]) for name in sparse.tensors)
        return _Content(dense, sparse.metadata, [note], held_bytes)
    arrays, header = read_container(path)
    own = parse_json_object(path, header, OWN_KEY)
    aliases = check_aliases(path, own.pop("aliases", {}), arrays)
    arrays = in_order(arrays, own.pop("order", []))
    tree = arrays | {alias: arrays[name] for alias, name in aliases.items()}
    return _Content(tree, own, [], path.stat().st_size)


def _load_torch(path: Path, kind: Kind) -> object:
    """torch.load of plain data; whatever the weights-only unpickler stumbles over becomes one refusal."""
    if kind == "legacy pickle" and (claimed := largest_storage(path)) > path.stat().st_size:
        raise refusal(path, f"a storage of {claimed} elements in a file of {path.stat().st_size} bytes", COPY_AGAIN)
    mapped = kind == "torch zip" and path.suffix != ".safetensors"  # given a path, torch.load goes by that suffix
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # deprecations inside torch that no reader of a checkpoint can act on
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise _torch_refusal(path, error) from None


def _torch_refusal(path: Path, error: Exception) -> InputRefused:
    text = str(error)
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return names_code(path, named[1])
    if re.search(r"Unsupported operand 149\b", text):  # FRAME, with which protocols 4 and 5 begin
        return unknown_protocol(path)
    told = re.search(r"WeightsUnpickler error:\s*(.+)", text) or re.search(r"(.*\S)\s*$", text)
    reason = told[1] if told else type(error).__name__
    return refusal(path, f"a damaged torch checkpoint ({reason[:200]})", COPY_AGAIN)
