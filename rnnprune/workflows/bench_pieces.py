"""What a benchmark multiplies: matrices and recurrent layers of a model, or random ones of given shapes.

The grammar of `--shapes`, items separated by commas:

    ROWSxCOLS            a matrix, 1760x1760
    KIND:INPUTxHIDDEN    a whole layer, lstm:512x1024, gru:1760x1760, rnn:256x256
    paper                the matrices of Narang et al. (ICLR 2017) and their successors
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnnprune.architecture import GATES, Kind, RecurrentStack, roles_from_shapes
from rnnprune.errors import UsageError
from rnnprune.kernels.csr import MAX_ELEMENTS, Csr, csr_from_dense
from rnnprune.workflows.subject import Subject

PAPER = ("1760x1760", "2560x2560", "3072x3072", "7680x2560", "10752x3584")
PAPER_SPARSITY = (0.9, 0.95)
DETECTED_BLOCKS = ((16, 1), (8, 4), (8, 1), (4, 4))
FULL_BLOCKS = 0.98  # share of nonzeros in the occupied blocks from which a pattern counts as made of blocks
SPARSE_ENOUGH = 0.2  # below, every pattern would count as made of blocks
UNSTRUCTURED = (1, 1)

_SHAPE = re.compile(r"^(?:(rnn|gru|lstm):)?([1-9]\d{0,8})x([1-9]\d{0,8})$")


@dataclass(frozen=True, eq=False)
class Piece:
    """A matrix, [rows, cols], named `weight`, or one layer's tensors under torch's names with `_l0`; float32.

    `name`: of the matrix or layer in its model, "" for random weights; `alike`: of those that it stands for.
    """

    shape: str
    sparsity: float
    block: tuple[int, int]
    tensors: Mapping[str, Tensor]
    stack: RecurrentStack | None = None
    name: str = ""
    alike: tuple[str, ...] = ()

    @property
    def op(self) -> str:
        """`matvec`, or the kind of the layer."""
        return self.stack.kind if self.stack else "matvec"

    @property
    def matrices(self) -> dict[str, Tensor]:
        """The weights alone."""
        return {name: tensor for name, tensor in self.tensors.items() if tensor.ndim == 2}

    @functools.cached_property
    def csr(self) -> dict[str, Csr]:
        """The nonzeros of every matrix, found once."""
        return {name: csr_from_dense(weight) for name, weight in self.matrices.items()}


@dataclass(frozen=True)
class Shape:
    """One item of `--shapes`; `kind` is None for a matrix. first x second: rows x cols, or input x hidden."""

    kind: Kind | None
    first: int
    second: int

    @property
    def label(self) -> str:
        """As rows name it: `1760x1760` or `512->1024`."""
        return f"{self.first}x{self.second}" if self.kind is None else f"{self.first}->{self.second}"


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """The items of `--shapes`. UsageError names the item that is none."""
    items = [each for item in text.split(",") for each in (PAPER if item == "paper" else (item.strip(),))]
    return tuple(dict.fromkeys(_parse_shape(item) for item in items))


def _parse_shape(item: str) -> Shape:
    match = _SHAPE.match(item)
    if match is None:
        raise UsageError(
            f"--shapes {item!r}: expected ROWSxCOLS (1760x1760), "
            "KIND:INPUTxHIDDEN (lstm:512x1024; rnn, gru, lstm) or paper"
        )
    kind: Kind | None = next((kind for kind in GATES if kind == match[1]), None)
    shape = Shape(kind, int(match[2]), int(match[3]))
    rows = shape.first if kind is None else len(GATES[kind]) * shape.second
    if rows * max(shape.first, shape.second) > MAX_ELEMENTS:
        raise UsageError(f"--shapes {item!r}: more than the limit of {MAX_ELEMENTS} elements in one matrix")
    return shape


def random_piece(shape: Shape, sparsity: float, block: tuple[int, int] = UNSTRUCTURED, seed: int = 0) -> Piece:
    """Random weights of this shape with about this share of zeros, in blocks; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    if shape.kind is None:
        tensors = {"weight": _random_matrix(shape.first, shape.second, sparsity, block, generator)}
        return Piece(shape.label, _sparsity(tensors), block, tensors)
    stack = RecurrentStack("", shape.kind, shape.first, shape.second, 0, 1, False, True, False)
    tensors = {
        name: _random_matrix(size[0], size[1], sparsity, block, generator)
        if len(size) == 2
        else torch.randn(size[0], generator=generator) / 10
        for name, size in stack.parameter_shapes().items()
    }
    return Piece(shape.label, _sparsity(tensors), block, tensors, stack)


def shape_of(piece: Piece) -> Shape:
    """The shape to ask for to get a random piece like this one (without its projection)."""
    if piece.stack:
        return Shape(piece.stack.kind, piece.stack.input_size, piece.stack.hidden_size)
    rows, cols = piece.tensors["weight"].shape
    return Shape(None, rows, cols)


def pieces_of(subject: Subject) -> Iterator[Piece]:
    """Every distinct matrix and recurrent layer of a model, a layer after its matrices, linear matrices last.

    One direction of a layer is one piece. Those of one kind, the same sizes, the same blocks and the same share of
    zeros, to a percent, are timed once: the first of them stands for all.
    """
    alike: dict[Hashable, list[str]] = {}
    for piece in _all_pieces(subject):
        alike.setdefault(_likeness(piece), []).append(piece.name)
    for piece in _all_pieces(subject):
        first, *others = alike[_likeness(piece)]
        if piece.name == first:
            yield replace(piece, alike=tuple(others))


def _all_pieces(subject: Subject) -> Iterator[Piece]:
    state_dict = subject.checkpoint.state_dict()
    for stack in subject.stacks:
        dot = f"{stack.prefix}." if stack.prefix else ""
        directions = ("", "_reverse") if stack.bidirectional else ("",)
        for layer, direction in itertools.product(range(stack.num_layers), directions):
            end = "" if stack.is_cell else f"_l{layer}{direction}"
            one, tensors = _layer(stack, dot, end, state_dict)
            for weight in ("weight_ih", "weight_hh", "weight_hr"):
                if f"{weight}_l0" in tensors:
                    yield matrix_piece(tensors[f"{weight}_l0"], f"{dot}{weight}{end}")
            blocks = {detect_block(tensor) for tensor in tensors.values() if tensor.ndim == 2}
            block = blocks.pop() if len(blocks) == 1 else UNSTRUCTURED
            name = _layer_name(stack, layer, direction)
            yield Piece(f"{one.input_size}->{one.hidden_size}", _sparsity(tensors), block, tensors, one, name)
    for name, role in roles_from_shapes(subject.shapes).items():
        if role == "linear" and state_dict[name].numel() > 0:
            yield matrix_piece(state_dict[name].float(), name)


def _likeness(piece: Piece) -> Hashable:
    """Equal for pieces that take the same time, as far as a pattern of zeros can tell."""
    sizes = tuple(sorted((name, tuple(tensor.shape)) for name, tensor in piece.tensors.items()))
    return piece.op, sizes, piece.block, round(piece.sparsity, 2)


def _layer_name(stack: RecurrentStack, layer: int, direction: str) -> str:
    """`encoder layer 1, backward direction`; no more than is needed to tell it from its siblings."""
    parts = [stack.prefix] if stack.prefix else []
    if not parts or stack.num_layers > 1:
        parts.append("cell" if stack.is_cell else f"layer {layer}")
    which = f", {'backward' if direction else 'forward'} direction" if stack.bidirectional else ""
    return " ".join(parts) + which


def matrix_piece(weight: Float[Tensor, "rows cols"], name: str = "") -> Piece:
    """A matrix as it is."""
    tensors, shape = {"weight": weight}, f"{weight.shape[0]}x{weight.shape[1]}"
    return Piece(shape, _sparsity(tensors), detect_block(weight), tensors, name=name)


def detect_block(weight: Float[Tensor, "rows cols"]) -> tuple[int, int]:
    """Rows x columns of the blocks that the zeros respect, (1, 1) when there are none."""
    nnz = int(weight.count_nonzero())
    if nnz == 0 or 1 - nnz / weight.numel() < SPARSE_ENOUGH:
        return UNSTRUCTURED
    for rows, cols in DETECTED_BLOCKS:
        padded = torch.nn.functional.pad(weight != 0, (0, -weight.shape[1] % cols, 0, -weight.shape[0] % rows))
        block_rows, block_cols = padded.shape[0] // rows, padded.shape[1] // cols
        tiles = padded.reshape(block_rows, rows, block_cols, cols).amax(dim=(1, 3))
        occupied = _spread(tiles, (rows, cols), (weight.shape[0], weight.shape[1]))
        if nnz >= FULL_BLOCKS * int(occupied.count_nonzero()):
            return rows, cols
    return UNSTRUCTURED


def _layer(
    stack: RecurrentStack, dot: str, end: str, state_dict: Mapping[str, Tensor]
) -> tuple[RecurrentStack, dict[str, Tensor]]:
    """One direction of one layer as a forward stack of its own, and its tensors as torch's bare `_l0`, float32."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    tensors = {
        f"{name}_l0": state_dict[f"{dot}{name}{end}"].float() for name in names if f"{dot}{name}{end}" in state_dict
    }
    input_size = tensors["weight_ih_l0"].shape[1]
    one = replace(stack, prefix="", input_size=input_size, num_layers=1, bidirectional=False, is_cell=False)
    return one, tensors


def _random_matrix(
    rows: int, cols: int, sparsity: float, block: tuple[int, int], generator: torch.Generator
) -> Float[Tensor, "rows cols"]:
    """Scaled so that a product has outputs of order one."""
    tiles = torch.rand(-(-rows // block[0]), -(-cols // block[1]), generator=generator) >= sparsity
    values = torch.randn(rows, cols, generator=generator) / max(1.0, cols * (1 - sparsity)) ** 0.5
    weight: Tensor = values * _spread(tiles, block, (rows, cols))
    return weight


def _spread(
    tiles: Bool[Tensor, "block_rows block_cols"], block: tuple[int, int], shape: tuple[int, int]
) -> Bool[Tensor, "rows cols"]:
    """Each entry repeated over its block, cut to the shape of the matrix."""
    spread: Tensor = tiles.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[: shape[0], : shape[1]]
    return spread


def _sparsity(tensors: Mapping[str, Tensor]) -> float:
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    nnz = sum(int(tensor.count_nonzero()) for tensor in matrices)
    return 1.0 - nnz / sum(tensor.numel() for tensor in matrices)
