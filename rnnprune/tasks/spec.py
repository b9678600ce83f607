"""The sizes of a built-in model: plain data in every checkpoint, checked before anything is allocated."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import nn

from rnnprune.architecture import Kind, Shape
from rnnprune.errors import InputRefused, UsageError

Spec = TypeVar("Spec", bound="ModelSpec")
MAX_PARAMETERS = 2**31  # a checkpoint's sizes are allocated, so they have a ceiling
MAX_UNITS, MAX_LAYERS = 2**20, 64
RECURRENT: Mapping[Kind, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class ModelSpec:
    """Base of every built-in model's sizes: a frozen dataclass of int, float, bool, Literal and tuple[str, ...] fields.

    A subclass checks itself in `__post_init__` with the functions below and says in `build` what model it stands for.
    may_be_empty: its tuples that a checkpoint may hold without an element.
    """

    may_be_empty: ClassVar[tuple[str, ...]] = ()

    def build(self) -> nn.Module:
        """The untrained model, drawn from torch's global generator."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Strings, numbers and lists only: what `from_dict`, JSON and a weights-only load can read."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls: type[Spec], stored: object) -> Spec:
        """The spec that a checkpoint holds. Raises InputRefused, which names the key that is unknown or wrong."""
        values = checked(stored, "rnnprune.model", {name: _stored_type(kind) for name, kind in cls._types().items()})
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = _strings(f"rnnprune.model.{name}", value, may_be_empty=name in cls.may_be_empty)
        try:
            cls.check_choices(values)
            return cls(**values)
        except UsageError as error:
            raise InputRefused(f"rnnprune.model cannot be built: {error}; was the checkpoint edited?") from error

    @classmethod
    def _types(cls) -> dict[str, Any]:
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in fields(cls)}

    @classmethod
    def check_choices(cls, values: Mapping[str, object]) -> None:
        """Raise UsageError for a Literal field that holds none of its values."""
        for name, kind in cls._types().items():
            choices = get_args(kind)
            if get_origin(kind) is Literal and values[name] not in choices:
                raise UsageError(f"{name}: expected one of {', '.join(choices)}; found {values[name]!r:.60}")

    def check_sizes(self, **limits: int) -> None:
        """Raise UsageError for a size outside 1 to its limit."""
        for name, limit in limits.items():
            size = getattr(self, name)
            if not 1 <= size <= limit:
                found = size if size.bit_length() < 64 else "one beyond 64 bits"  # which str() may refuse to print
                raise UsageError(f"{name}: expected a whole number from 1 to {limit:,}, found {found}")

    def check_dropout(self, dropout: float) -> None:
        """Raise UsageError unless 0 <= dropout < 1."""
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout: expected 0 <= dropout < 1, found {dropout}")

    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of everything in the model's state dict, from torch's meta device: nothing is allocated."""
        return dict(_shapes_of(self))

    def check_total(self) -> None:
        """Raise UsageError for more weights than MAX_PARAMETERS."""
        total = sum(math.prod(shape) for shape in self.shapes().values())
        if total > MAX_PARAMETERS:
            raise UsageError(f"{', '.join(self._sizes())}: {total:,} weights, over the limit of {MAX_PARAMETERS:,}")

    def _sizes(self) -> list[str]:
        return [name for name, kind in self._types().items() if kind is int]


@functools.lru_cache(maxsize=8)
def _shapes_of(spec: ModelSpec) -> dict[str, Shape]:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors without elements: a vocabulary that is not known yet
        return {name: tuple(tensor.shape) for name, tensor in spec.build().state_dict().items()}


def check_tokens(name: str, tokens: tuple[str, ...], special: tuple[str, ...]) -> None:
    """Raise UsageError unless the tokens begin with the special ones and none stands twice."""
    if tokens[: len(special)] != special:
        raise UsageError(f"{name}: expected to begin with {', '.join(special)}; found {tokens[: len(special)]}")
    if len(set(tokens)) < len(tokens):
        raise UsageError(f"{name}: the same token stands in it twice")


def recurrent(
    cell: Kind, inputs: int, hidden: int, layers: int, *, dropout: float = 0.0, bidirectional: bool = False
) -> nn.RNNBase:
    """nn.RNN, nn.GRU or nn.LSTM, batch first; dropout stands between layers, so one layer has none."""
    return RECURRENT[cell](
        inputs,
        hidden,
        layers,
        batch_first=True,
        dropout=dropout if layers > 1 else 0.0,  # torch warns where there is no "between"
        bidirectional=bidirectional,
    )


def checked(stored: object, where: str, types: Mapping[str, type]) -> dict[str, Any]:
    """`stored` as a dict with exactly these keys, each of its type; anything else is refused by name."""
    if not isinstance(stored, Mapping):
        raise InputRefused(_wrong_type(where, dict, stored))
    unknown = [str(key) for key in stored if key not in types]
    missing = [key for key in types if key not in stored]
    if unknown or missing:
        found = [f"unknown {key!r}" for key in unknown] + [f"missing {key!r}" for key in missing]
        raise InputRefused(f"{where}: {', '.join(found[:8])}; was it written by another version of rnnprune?")
    for key, kind in types.items():
        value = stored[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputRefused(_wrong_type(f"{where}.{key}", kind, value))
    return dict(stored)


def _stored_type(kind: Any) -> type:
    origin = get_origin(kind)
    if origin is Literal:
        return str
    return list if origin is tuple else kind


def _strings(where: str, values: list[Any], *, may_be_empty: bool) -> tuple[str, ...]:
    if not values and not may_be_empty:
        raise InputRefused(f"{where}: the checkpoint holds an empty one; was it edited?")
    for place, token in enumerate(values):
        if type(token) is not str:
            raise InputRefused(_wrong_type(f"{where}[{place}]", str, token))
    return tuple(values)


def _wrong_type(where: str, expected: type, found: object) -> str:
    return (
        f"{where}: expected {expected.__name__}, found {type(found).__name__}; the checkpoint was edited or is damaged"
    )
