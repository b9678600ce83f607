"""Which layers a set of named tensors holds: the grammar of torch's parameter names, and what the shapes say.

torch names the tensors of a recurrent layer `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, with
`weight_hr_l0` for a projection and `_reverse` for the backward direction; cells drop the `_l0`. Gates are stacked along
the rows, so rows / hidden = 4 for an LSTM (i f g o), 3 for a GRU (r z n), 1 for a vanilla RNN.

Sizes: I input, H hidden, P projection, G gates, D directions. Shapes only; no tensor is touched here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rnnprune.errors import printable

Shape = tuple[int, ...]
Kind = Literal["rnn", "gru", "lstm"]
Role = Literal["input", "recurrent", "projection", "linear", "embedding", "convolution", "bias", "norm", "unknown"]

GATES: Mapping[Kind, str] = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}
KIND_OF_GATE_COUNT: Mapping[int, Kind] = {len(gates): kind for kind, gates in GATES.items()}

_RECURRENT_NAME = re.compile(
    r"^(?:(?P<prefix>.*)\.)?(?P<tensor>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l(?P<layer>\d{1,4}))?(?P<reverse>_reverse)?$"
)
_EMBEDDING_NAME = re.compile(r"embed|(?:^|[._])embs?(?:[._\d]|$)")  # not the emb of "ensemble" or "member"
_ROLE_OF_TENSOR: Mapping[str, Role] = {"weight_ih": "input", "weight_hh": "recurrent", "weight_hr": "projection"}


class RecurrentName(NamedTuple):
    """One parsed parameter name, e.g. `encoder.rnn.weight_hh_l1_reverse`."""

    prefix: str
    tensor: str
    layer: int | None  # None: a cell
    reverse: bool


@dataclass(frozen=True)
class RecurrentStack:
    """One nn.RNN / nn.GRU / nn.LSTM (or cell), as its state dict shows it.

    `proj_size` is 0 without a projection, as in torch. A vanilla RNN's nonlinearity (tanh or relu) leaves no trace in a
    state dict, so it is not a field.
    """

    prefix: str
    kind: Kind
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    is_cell: bool

    @property
    def label(self) -> str:
        """What a person would call it: `LSTM 512 -> 1024, 2 layers, bidirectional`."""
        parts = [f"{self.kind.upper()}{'Cell' if self.is_cell else ''} {self.input_size} -> {self.hidden_size}"]
        if self.proj_size:
            parts.append(f"projected to {self.proj_size}")
        if self.num_layers > 1:
            parts.append(f"{self.num_layers} layers")
        if self.bidirectional:
            parts.append("bidirectional")
        return ", ".join(parts)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Full name -> shape of every parameter this stack must have, in torch's order."""
        shapes: dict[str, Shape] = {}
        gate_rows = len(GATES[self.kind]) * self.hidden_size
        output_size = self.proj_size or self.hidden_size
        directions = ("", "_reverse") if self.bidirectional else ("",)
        dot = f"{self.prefix}." if self.prefix else ""
        for layer in range(self.num_layers):
            layer_input = self.input_size if layer == 0 else output_size * len(directions)
            for direction in directions:
                end = "" if self.is_cell else f"_l{layer}{direction}"
                shapes[f"{dot}weight_ih{end}"] = (gate_rows, layer_input)
                shapes[f"{dot}weight_hh{end}"] = (gate_rows, output_size)
                if self.bias:
                    shapes[f"{dot}bias_ih{end}"] = (gate_rows,)
                    shapes[f"{dot}bias_hh{end}"] = (gate_rows,)
                if self.proj_size:
                    shapes[f"{dot}weight_hr{end}"] = (self.proj_size, self.hidden_size)
        return shapes


class Recognised(NamedTuple):
    """The stacks found, and for every tensor that looks recurrent but fits no stack, why."""

    stacks: list[RecurrentStack]
    problems: dict[str, str]


def parse_recurrent_name(name: str) -> RecurrentName | None:
    """The parts of a recurrent parameter's name, or None for any other name."""
    match = _RECURRENT_NAME.match(name)
    if match is None:
        return None
    layer = match["layer"]
    if layer is None and match["reverse"]:
        return None  # torch has no backward cell
    return RecurrentName(
        match["prefix"] or "", match["tensor"], None if layer is None else int(layer), bool(match["reverse"])
    )


def find_stacks(shapes: Mapping[str, Shape]) -> Recognised:
    """Recognise every recurrent stack among named shapes; what does not fit is explained, never guessed."""
    groups: dict[tuple[str, bool], dict[str, RecurrentName]] = defaultdict(dict)
    for name in shapes:
        parsed = parse_recurrent_name(name)
        if parsed is not None:
            groups[parsed.prefix, parsed.layer is None][name] = parsed

    recognised = Recognised([], {})
    for (prefix, is_cell), members in groups.items():
        stack_or_problem = _recognise(prefix, is_cell, members, shapes)
        if isinstance(stack_or_problem, str):
            recognised.problems.update(dict.fromkeys(members, stack_or_problem))
        else:
            recognised.stacks.append(stack_or_problem)
    return recognised


def _recognise(
    prefix: str, is_cell: bool, members: Mapping[str, RecurrentName], shapes: Mapping[str, Shape]
) -> RecurrentStack | str:
    """The stack that these tensors form, or the reason why they form none."""
    dot, end = f"{prefix}." if prefix else "", "" if is_cell else "_l0"
    input_name, recurrent_name = f"{dot}weight_ih{end}", f"{dot}weight_hh{end}"
    for needed in (input_name, recurrent_name):
        if len(shapes.get(needed, ())) != 2:
            found = f"has shape {list(shapes[needed])}, not two dimensions" if needed in shapes else "is missing"
            return f"no recurrent stack: {needed} {found}"

    gate_rows, output_size = shapes[recurrent_name]
    projection = shapes.get(f"{dot}weight_hr{end}", ())
    proj_size = output_size if len(projection) == 2 else 0
    hidden_size = projection[1] if len(projection) == 2 else output_size
    kind = KIND_OF_GATE_COUNT.get(gate_rows // hidden_size) if hidden_size and gate_rows % hidden_size == 0 else None
    if kind is None:
        return (
            f"no recurrent stack: {recurrent_name} has {gate_rows} rows for {hidden_size} hidden units; "
            "expected 4 (LSTM), 3 (GRU) or 1 (RNN) times as many"
        )
    stack = RecurrentStack(
        prefix=prefix,
        kind=kind,
        input_size=shapes[input_name][1],
        hidden_size=hidden_size,
        proj_size=proj_size,
        num_layers=1 + max(parsed.layer or 0 for parsed in members.values()),
        bidirectional=any(parsed.reverse for parsed in members.values()),
        bias=any(parsed.tensor.startswith("bias") for parsed in members.values()),
        is_cell=is_cell,
    )
    return _mismatch(stack, members, shapes) or stack


def _mismatch(stack: RecurrentStack, members: Iterable[str], shapes: Mapping[str, Shape]) -> str | None:
    """Why these tensors are not exactly the parameters of the stack, or None when they are."""
    if stack.num_layers > len(list(members)):
        return f"no recurrent stack: a layer number as high as {stack.num_layers - 1}, but layers are missing"
    expected = stack.parameter_shapes()
    for name, shape in expected.items():
        if name not in shapes:
            return f"no recurrent stack: {name} of shape {list(shape)} is missing ({stack.label})"
        if shapes[name] != shape:
            return (
                f"no recurrent stack: {name}: expected {list(shape)}, found {list(shapes[name])} "
                f"({stack.label}; is it another kind of layer?)"
            )
    surplus = next((name for name in members if name not in expected), None)
    return None if surplus is None else f"no recurrent stack: {surplus} does not belong to {stack.label}"


def misfit(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Every difference between the tensors that a model has and those that a file has; [] where it fits."""
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {printable(name)}" for name in found if name not in expected]
    return problems + [
        f"{name}: expected {list(shape)}, found {list(found[name])}"
        for name, shape in expected.items()
        if name in found and shape != found[name]
    ]


def roles_from_shapes(shapes: Mapping[str, Shape]) -> dict[str, Role]:
    """What every tensor of a bare state dict is, by name and shape alone.

    A matrix with a bias of as many elements as it has rows is linear. A matrix without one may be an embedding, so it
    stays `unknown` unless its name says so: better to skip with a reason than to prune the wrong thing.
    """
    members = {
        name: _ROLE_OF_TENSOR.get(parsed.tensor, "bias")
        for stack in find_stacks(shapes).stacks
        for name in stack.parameter_shapes()
        if (parsed := parse_recurrent_name(name)) is not None
    }
    return {name: members.get(name) or _role_by_shape(name, shapes) for name in shapes}


def _role_by_shape(name: str, shapes: Mapping[str, Shape]) -> Role:
    shape = shapes[name]
    owner, _, leaf = name.rpartition(".")
    if len(shape) <= 1:
        return "bias" if leaf.startswith("bias") else "norm" if leaf == "weight" else "unknown"
    if leaf == "weight" and len(shape) > 2:
        return "convolution"
    bias = f"{owner}.bias" if owner else "bias"
    if leaf == "weight" and shapes.get(bias) == shape[:1]:
        return "linear"
    return "embedding" if _EMBEDDING_NAME.search(name.lower()) else "unknown"
