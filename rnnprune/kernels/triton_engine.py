"""Engine `triton`: products of sparse matrices on CUDA, and what the layers of triton_layer.py share with them.

Layouts: `sell` for single weights, `RxC` for blocks of R rows and C columns; values as float32, or as float16 or
bfloat16 with float32 accumulation. `auto` finds blocks in the pattern, and narrow values where they lose nothing.
x and y are float32. Nothing here has been timed on hardware: the sizes of tiles are reasoned, not measured.

With TRITON_INTERPRET=1 set before the first use the kernels run in Triton's interpreter on the CPU, thousands of times
slower: for tests.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels.api import Engine
from rnnprune.kernels.csr import Csr
from rnnprune.kernels.triton_pack import VALUE_DTYPES, Layout, SlicedEll, Values, pack_sliced, stored_entries

OLDEST = 3
MOST_PADDING = 1.5  # stored entries per nonzero up to which blocks pay: they need no column per entry
BLOCKS = ((16, 1), (8, 4), (8, 1), (4, 4))
WIDEST_BATCH = 32  # columns of one program; more of them take more programs
MOST_COLUMNS = 2**20  # of one launch: a grid has at most 65,535 programs along its second dimension
MOST_WARPS = 8
FEWEST_PROGRAMS = 264  # two for each of the 132 multiprocessors of an H100
_VARIANT = re.compile(r"^(auto|sell|(?:16x1|8x4|8x1|4x4))(?::(fp32|fp16|bf16))?(?::u(\d+)w(\d+))?$")


class Variant(NamedTuple):
    """How a matrix is packed: `auto` layout and values None are found from the matrix, units and warps 0 by rule."""

    layout: str = "auto"
    values: Values | None = None
    units: int = 0
    warps: int = 0


class Tile(NamedTuple):
    """Of one program: columns of the batch, entries of a row at a time, warps."""

    batch: int
    width: int
    warps: int


def parse_variant(text: str) -> Variant | None:
    """`8x4:fp16:u8w4` -> its parts; "" is auto; None when there is no such variant."""
    match = _VARIANT.match(text or "auto")
    if match is None:
        return None
    layout, values, units, warps = match.groups()
    kind = next((kind for kind in VALUE_DTYPES if kind == values), None)
    return Variant(layout, kind, int(units or 0), int(warps or 0))


def unavailable_reason() -> str | None:
    """Why this engine cannot run here, or None when it can."""
    found = triton_version()
    if found is None:
        return "triton is not installed (pip install 'rnnprune[cuda]', Linux only)"
    if int(found.partition(".")[0]) < OLDEST:
        return f"triton {found} is too old (pip install 'triton>={OLDEST}')"
    if torch.cuda.is_available() or is_interpreted():
        return None
    return "torch sees no CUDA device (install a CUDA build of torch and a driver, and look at nvidia-smi)"


def triton_version() -> str | None:
    """Of the package that is installed, under either of its names; None for none."""
    for name in ("triton", "pytorch-triton"):  # the latter comes with nightly builds of torch
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def require_triton(device: torch.device) -> None:
    """Raise UsageError, with the reason and the remedy, where the engine cannot run on this device."""
    if (reason := unavailable_reason()) is not None:
        raise UsageError(f"the triton engine is unavailable: {reason}; or choose another engine")
    if device.type != ("cpu" if is_interpreted() else "cuda"):
        raise UsageError(f"the triton engine runs on cuda, the weights are on {device}; move the module there first")


def default_device() -> torch.device:
    """Where a matrix goes that is not on a GPU yet."""
    return torch.device("cpu" if is_interpreted() else "cuda")


def pack_matrix(csr: Csr, gates: int, variant: Variant, device: torch.device) -> SlicedEll:
    """Pack for `gates` gates, in the variant asked for or found. UsageError where the layout does not fit."""
    block = _block(csr, gates, variant.layout)
    units = variant.units or _units(csr.shape[0] // gates, block)
    if units & (units - 1) or (block is not None and block[0] % units):
        raise UsageError(f"{units} units per program: a power of two is needed that divides the {block or 'rows'}")
    layout = Layout(*block, units) if block else Layout(1, 0, units)
    return pack_sliced(csr, gates, layout, variant.values or _lossless(csr.values), device)


def tile_of(packed: SlicedEll, batch: int, warps: int = 0) -> Tile:
    """For this batch. From what the compiler makes of it for an H100: at batch 1, each thread loads 16 bytes at once;
    in a batch, [U, K] has no more elements than threads, or values would reach their columns through shared memory."""
    units, columns = packed.layout.units, min(WIDEST_BATCH, power_of_two(batch))
    row = max(16, power_of_two(round(packed.mean_width)))
    if columns == 1:
        widest, per_thread = (128, 4) if packed.layout.cols else (256, 8)
    else:
        widest, per_thread = 32 if columns <= 8 else 16, min(4, columns)
    width = min(row, widest)
    return Tile(columns, width, warps or min(MOST_WARPS, max(1, units * width * columns // (32 * per_thread))))


class Packed:
    """A sparse matrix ready to multiply, made by `pack`."""

    def __init__(self, csr: Csr, variant: Variant, device: torch.device) -> None:
        require_triton(device)
        self.matrix, self.variant = pack_matrix(csr, 1, variant, device), variant

    def runs(self, batch: int) -> str:  # noqa: ARG002 - one layout serves every batch
        """The layout and the values that run, as a benchmark row names them."""
        return name_of(self.matrix)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrix."""
        return self.matrix.nbytes

    def __call__(self, x: Float[Tensor, "cols ..."]) -> Float[Tensor, "rows ..."]:
        """y = A x for x [cols] or [cols, B]."""
        rows, cols = self.matrix.shape
        device = self.matrix.values.device
        if x.dtype != torch.float32 or x.device != device or x.ndim not in (1, 2) or x.shape[0] != cols:
            found = f"x is {x.dtype} {list(x.shape)} on {x.device}"
            raise UsageError(f"{found}, expected float32 [{cols}] or [{cols}, B] on {device}")
        columns = x.contiguous().view(cols, -1)
        y = x.new_empty(rows, columns.shape[1])
        multiply(self.matrix, columns, y, None, self.variant.warps)
        return y if x.ndim == 2 else y[:, 0]


def pack(csr: Csr, variant: str = "auto", device: torch.device | None = None) -> Packed:
    """Pack a matrix for products with any batch, on the device of its values if that is a GPU."""
    parsed = parse_variant(variant)
    if parsed is None:
        raise UsageError(f"variant {variant!r}: expected auto, sell or RxC, then :fp32, :fp16 or :bf16")
    place = csr.values.device if csr.values.is_cuda else default_device()
    return Packed(csr, parsed, device or place)


def multiply(
    packed: SlicedEll, x: Float[Tensor, "cols n"], y: Float[Tensor, "rows n"], bias: Tensor | None, warps: int = 0
) -> None:
    """y = A x + bias, one gate; the last dimension of x and y is contiguous."""
    from rnnprune.kernels import triton_kernels  # here, because triton is optional and slow to import

    for first in range(0, x.shape[1], MOST_COLUMNS):
        columns, out = x[:, first : first + MOST_COLUMNS], y[:, first : first + MOST_COLUMNS]
        n = columns.shape[1]
        tile = tile_of(packed, n, warps)
        grid = (len(packed.owned), -(-n // tile.batch))
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            triton_kernels.product[grid](
                columns, out, packed.values if bias is None else bias, *arrays(packed), packed.shape[0], n,
                x.stride(0), y.stride(0), BIAS=bias is not None, **constants(packed, tile),
            )  # fmt: skip


def arrays(packed: SlicedEll) -> tuple[Tensor, ...]:
    """In the order in which the kernels take them; a pointer is needed where there are no columns."""
    columns = packed.columns if packed.columns.numel() else packed.values
    return packed.values, columns, packed.spans, packed.longest, packed.owned


def constants(packed: SlicedEll, tile: Tile) -> dict[str, Any]:
    """What a kernel is compiled for."""
    return {
        "U": packed.layout.units,
        "K": tile.width,
        "B": tile.batch,
        "C": packed.layout.cols,
        "WORDS": (0 if not packed.words else 1 if packed.kind == "fp16" else 2),
        "num_warps": tile.warps,
        "enable_fp_fusion": True,
    }


def name_of(packed: SlicedEll) -> str:
    """Layout and values, float32 unsaid: `sell`, `16x1:fp16`."""
    return packed.layout.name if packed.kind == "fp32" else f"{packed.layout.name}:{packed.kind}"


def padded_batch(batch: int) -> int:
    """The batch that buffers have room for: a power of two, from 32 on a multiple of it."""
    return power_of_two(batch) if batch <= WIDEST_BATCH else -(-batch // WIDEST_BATCH) * WIDEST_BATCH


def _block(csr: Csr, gates: int, layout: str) -> tuple[int, int] | None:
    """The block asked for, or the one with the least padding if that is little enough; None for single weights."""
    if layout != "auto":
        rows, separator, cols = layout.partition("x")
        return (int(rows), int(cols)) if separator else None
    stored = {block: stored_entries(csr, gates, block) for block in BLOCKS if csr.shape[1] % block[1] == 0}
    best = min(stored, key=lambda block: stored[block])
    return best if 0 < stored[best] <= MOST_PADDING * csr.nnz else None


def _units(hidden: int, block: tuple[int, int] | None) -> int:
    """As many per program as leave every multiprocessor something to do."""
    if block is None:
        return next((units for units in (4, 2) if hidden >= units * FEWEST_PROGRAMS), 1)
    return next(
        (units for units in (16, 8) if block[0] % units == 0 and hidden >= units * FEWEST_PROGRAMS), min(block[0], 4)
    )


def _lossless(values: Tensor) -> Values:
    """The narrowest values that lose nothing."""
    wide = values.detach().float()
    kinds: tuple[Values, ...] = ("fp16", "bf16")
    return next((kind for kind in kinds if torch.equal(wide.to(VALUE_DTYPES[kind]).float(), wide)), "fp32")


def power_of_two(number: int) -> int:
    """The smallest that is not below."""
    return 1 << max(0, number - 1).bit_length()


ENGINE = Engine("triton", pack)
