"""Engine `native`: C kernels with vector extensions, for products and for whole recurrent layers on the CPU.

T time, B batch, I input, H hidden, P projection. Products take [cols] or [cols, B]; layers take torch's own layouts,
sequences [T, B, I] (any strides with contiguous features) and states [B, H].

Layouts of a packed matrix:

    sell8     unstructured, rows in chunks of eight; any batch
    window    unstructured, batch 1 on AVX-512: x in registers, picked by permutes
    16x1 8x1 8x4 4x4    blocks of rows x columns; with `:int8` one byte per value and one scale per row
    auto      window where the processor has it, else sell8
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels.api import Engine
from rnnprune.kernels.csr import WIDEST_UINT16_COLS, Csr

_REASON: str | None
try:
    from rnnprune.kernels import _native

    _REASON = None
except ImportError as error:
    is_built = importlib.util.find_spec("rnnprune.kernels._native") is not None
    found = f"the C extension cannot be loaded ({error})" if is_built else "the C extension was not built"
    _REASON = f"{found}; install with a C compiler and without RNNPRUNE_NO_NATIVE"

BATCH_STEP = 8  # batches other than 1 are padded to a multiple of this


class Layout(NamedTuple):
    """How the C engine names a layout: rp_format in rp_matrix.h."""

    layout: int
    lanes: int
    width: int
    int8: bool


LAYOUTS = {
    "sell8": Layout(0, 8, 1, False),
    "window": Layout(1, 16, 1, False),
    **{
        f"{lanes}x{width}{':int8' if int8 else ''}": Layout(2, lanes, width, int8)
        for lanes, width in ((16, 1), (8, 1), (8, 4), (4, 4))
        for int8 in (False, True)
    },
}
BLOCK_LAYOUTS = LAYOUTS.keys() - {"sell8", "window"}


def unavailable_reason() -> str | None:
    """Why this engine cannot run here, or None when it can."""
    return _REASON


def require_native() -> None:
    """Raise UsageError, with the reason and the remedy, where the engine cannot run."""
    if _REASON is not None:
        raise UsageError(f"the native engine is unavailable: {_REASON}, or choose another engine")


def instruction_sets() -> list[str]:
    """What this processor can run, best first: of avx512, avx2, baseline."""
    require_native()
    return _native.instruction_sets()


def resolve_layout(layout: str, cols: int, batch: int, isa: str | None = None) -> str:
    """The layout that really runs for this batch: `auto` resolved, `window` only where it can be."""
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(f"layout {layout!r}: expected auto or one of {', '.join(LAYOUTS)}")
    if layout in BLOCK_LAYOUTS and not LAYOUTS[layout].width <= cols <= WIDEST_UINT16_COLS:
        found = f"layout {layout!r} needs {LAYOUTS[layout].width} to {WIDEST_UINT16_COLS} columns, found {cols}"
        raise UsageError(f"{found}; use sell8 or auto")
    if layout not in ("auto", "window"):
        return layout
    can_window = "avx512" in (isa or instruction_sets()[0]) and cols <= WIDEST_UINT16_COLS
    if layout == "window" and not can_window:
        raise UsageError(f"layout 'window' needs AVX-512 and at most {WIDEST_UINT16_COLS} columns; use sell8 or auto")
    return "window" if batch == 1 and can_window else "sell8"


@functools.cache
def pool(threads: int) -> object:
    """The team of this many threads, shared by everything in the process; one job at a time runs on it."""
    return _native.pool_new(threads)


if hasattr(os, "register_at_fork"):  # a child inherits no threads
    os.register_at_fork(after_in_child=pool.cache_clear)


def array(tensor: Tensor | None) -> tuple[int, int]:
    """Address and length of a contiguous tensor; nothing for None."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), tensor.numel())


def float32(tensor: Tensor) -> Tensor:
    """The tensor as C reads it: float32, contiguous, on the CPU."""
    if tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous():
        return tensor
    return tensor.detach().to("cpu", torch.float32).contiguous()


class CsrArrays(NamedTuple):
    """The arrays of a Csr in the types that C reads. Keep it alive until the call that gets `args` is over."""

    shape: tuple[int, int]
    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor

    @property
    def args(self) -> tuple[int, ...]:
        """rows, cols, then each array, in the order in which the C door reads them."""
        is_u16 = self.col_indices.dtype == torch.uint16
        return (*self.shape, *array(self.crow_indices), is_u16, *array(self.col_indices), *array(self.values))


def arrays(csr: Csr) -> CsrArrays:
    """The arrays of a Csr, converted where needed."""
    if csr.col_indices.dtype not in (torch.uint16, torch.int32):
        raise UsageError(f"col_indices are {csr.col_indices.dtype}, expected uint16 or int32")
    crow_indices, col_indices = csr.crow_indices.to("cpu", torch.int32), csr.col_indices.cpu()
    return CsrArrays(csr.shape, crow_indices.contiguous(), col_indices.contiguous(), float32(csr.values))


class Packed:
    """A sparse matrix ready to multiply; made by `pack`, run by `product` or by calling it."""

    def __init__(self, csr: Csr, layout: str, threads: int, isa: str | None) -> None:
        require_native()
        self.csr, self.layout, self.threads, self.isa = csr, layout, threads, isa
        self._products: dict[bool, object] = {}  # by batch == 1

    def runs(self, batch: int) -> str:
        """The layout that runs for this batch, e.g. `window`."""
        return resolve_layout(self.layout, self.csr.shape[1], batch, self.isa)

    def handle(self, batch: int) -> object:
        """The C object for this batch, packed at first use."""
        single = batch == 1
        if single not in self._products:
            self._products[single] = self._prepare(batch)
        return self._products[single]

    def _prepare(self, batch: int) -> object:
        layout, other = self.runs(batch), self._products.get(batch != 1)
        if other is not None and layout == self.runs(1 if batch != 1 else BATCH_STEP):
            return other
        csr = arrays(self.csr)
        return _native.product_new(self.threads, self.isa, *LAYOUTS[layout], *csr.args)

    def nbytes(self, batch: int = 1) -> int:
        """Bytes in memory, once packed for this batch."""
        return _native.product_info(self.handle(batch))[0]

    def __call__(self, x: Float[Tensor, "cols ..."]) -> Float[Tensor, "rows ..."]:
        return product(self, x)


def pack(csr: Csr, layout: str = "auto", threads: int = 1, isa: str | None = None) -> Packed:
    """Pack a matrix for products with any batch."""
    packed = Packed(csr, layout, threads, isa)
    packed.handle(1)
    return packed


def product(packed: Packed, x: Float[Tensor, "cols ..."]) -> Float[Tensor, "rows ..."]:
    """y = A x for x [cols] or [cols, B]."""
    rows, cols = packed.csr.shape
    if x.dtype is not torch.float32 or not x.is_cpu or x.ndim not in (1, 2) or x.shape[0] != cols:
        found = f"x is {x.dtype} {list(x.shape)} on {x.device}"
        raise UsageError(f"{found}, expected float32 [{cols}] or [{cols}, B] on cpu")
    if x.ndim == 1 or x.shape[1] == 1:
        return _run_product(packed, x, 1, x.new_empty(rows) if x.ndim == 1 else x.new_empty(rows, 1))
    batch = x.shape[1]
    padding = -batch % BATCH_STEP
    padded = torch.nn.functional.pad(x, (0, padding)) if padding else x
    return _run_product(packed, padded, batch + padding, x.new_empty(rows, batch + padding))[:, :batch]


def _run_product(packed: Packed, x: Tensor, batch: int, y: Tensor) -> Tensor:
    """As few calls into torch as can be: each takes a tenth to a twentieth of a product of blocks."""
    if batch:
        x = x if x.is_contiguous() else x.contiguous()
        rows, cols = packed.csr.shape
        addresses = (x.data_ptr(), cols * batch, y.data_ptr(), rows * batch)
        _native.product_run(packed.handle(batch), pool(packed.threads), batch, *addresses)
    return y


ENGINE = Engine("native", pack)
