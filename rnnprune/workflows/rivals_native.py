"""The native engine in a benchmark: which of its variants run on a piece of work, and under which name.

`native` stands for the variants that fit the pattern of zeros, `native:LAYOUT` for one of them, and either may end in
an instruction set, `native:sell8:avx2`. A row is named after the layout that ran, never `native` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels import native
from rnnprune.kernels.native_layer import LayerWeights, Layouts, NativeLayer
from rnnprune.workflows.bench_pieces import UNSTRUCTURED, Piece
from rnnprune.workflows.rivals import LayerEngine, Prepare, Prepared, Work, prepare_layer

NAME = "native"
INSTRUCTION_SETS = ("avx512", "avx2", "baseline")
BLOCKS = {(16, 1): "16x1", (8, 4): "8x4", (8, 1): "8x1", (4, 4): "4x4"}


class Variant(NamedTuple):
    """A layout (`auto` included) and an instruction set, None for the processor's best."""

    layout: str
    isa: str | None

    def name(self, layout: str) -> str:
        """The name of a row in which this layout ran."""
        return ":".join(filter(None, (NAME, layout, self.isa)))


def is_native(name: str) -> bool:
    """Whether a name of `--engines` means this engine."""
    return name.partition(":")[0] == NAME


def parse_variant(name: str) -> Variant | None:
    """`native:16x1:int8:avx2` -> its variant; layout "" for `native` alone; None when there is no such variant."""
    parts = name.split(":")[1:]
    isa = parts.pop() if parts and parts[-1] in INSTRUCTION_SETS else None
    layout = ":".join(parts)
    return Variant(layout, isa) if layout in ("", "auto", *native.LAYOUTS) else None


def variant_names() -> list[str]:
    """Every name that `--engines` knows, without instruction sets."""
    return [NAME, *(f"{NAME}:{layout}" for layout in native.LAYOUTS)]


def native_rivals(work: Work, asked: tuple[str, ...]) -> tuple[dict[str, Prepare], dict[str, str]]:
    """The variants asked for (none: those that fit) by the name of what runs, and those left out with the reason."""
    if (reason := native.unavailable_reason()) is not None:
        return {}, {NAME: reason}
    rivals: dict[str, Prepare] = {}
    left_out = {}
    for name in asked or (NAME,):
        variant = parse_variant(name)
        assert variant is not None
        for each in [variant] if variant.layout else [Variant(layout, variant.isa) for layout in _fitting(work.piece)]:
            try:
                rivals[each.name(_resolve(work, each))] = lambda each=each: _prepare(work, each)  # type: ignore[misc]
            except UsageError as error:
                left_out[each.name(each.layout)] = str(error)
    return rivals, left_out


def _fitting(piece: Piece) -> list[str]:
    """For a pattern of blocks its own layout and the general one; without blocks `auto`, and sell8 beside it."""
    if piece.block == UNSTRUCTURED:
        return ["auto", "sell8"]
    rows, cols = piece.block
    fits = (name for (r, c), name in BLOCKS.items() if rows % r == 0 and cols % c == 0)
    layout = next(fits, None)
    return ["auto"] if layout is None else [layout, f"{layout}:int8", "auto"]


def _resolve(work: Work, variant: Variant) -> str:
    if variant.isa is not None and variant.isa not in native.instruction_sets():
        raise UsageError(f"this processor has no {variant.isa}, only {', '.join(native.instruction_sets())}")
    square = work.piece.tensors["weight_hh_l0" if work.piece.stack else "weight"]
    return native.resolve_layout(variant.layout, square.shape[1], work.batch, variant.isa)


def _prepare(work: Work, variant: Variant) -> Prepared:
    if work.piece.stack is not None:
        return prepare_layer(_layer_engine(work, variant), work)
    packed = native.pack(work.piece.csr["weight"], variant.layout, work.threads, variant.isa)
    x = work.x[:, 0].contiguous() if work.batch == 1 else work.x

    def output() -> Tensor:
        return native.product(packed, x).reshape(-1, work.batch)

    return Prepared(lambda: native.product(packed, x), output, packed.nbytes(work.batch))


def _layer_engine(work: Work, variant: Variant) -> LayerEngine:
    layer = NativeLayer(_weights(work.piece), _layouts(variant.layout), work.threads, variant.isa)

    def start(x: Tensor) -> Callable[[int], Tensor]:
        stream, frames = layer.stream(x.shape[1]), x.unbind(0)
        return lambda t: stream.step(frames[t])

    return LayerEngine(lambda x: layer.run(x)[0], start, lambda h: h, layer.nbytes(work.batch))


def _layouts(layout: str) -> Layouts:
    """`window` and `auto` concern the recurrent matrix; the others hold for all matrices."""
    return Layouts(weight_hh=layout) if layout in ("auto", "window") else Layouts(layout, layout, layout)


def _weights(piece: Piece) -> LayerWeights:
    assert piece.stack is not None
    return LayerWeights(
        kind=piece.stack.kind,
        weight_ih=piece.csr["weight_ih_l0"],
        weight_hh=piece.csr["weight_hh_l0"],
        bias_ih=piece.tensors.get("bias_ih_l0"),
        bias_hh=piece.tensors.get("bias_hh_l0"),
        weight_hr=piece.csr.get("weight_hr_l0"),
    )
