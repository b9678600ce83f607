"""Which engine a layer takes: what was asked for, what runs here, and the measured rules behind `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.kernels import native, triton_engine
from rnnprune.kernels.csr import Csr, csr_nbytes
from rnnprune.runtime.engines import PRODUCT_ENGINES
from rnnprune.runtime.options import DENSE, TRITON
from rnnprune.runtime.twin import Choice

FLOAT_BYTES = 4
CPU = torch.device("cpu")
Part = Literal["recurrent", "linear"]


class Rule(NamedTuple):
    """From this many weights (zeros counted) and this share of zeros on, the engine is the faster one."""

    weights: int
    sparsity: float


# Times as fast as dense, from `python examples/bench_choice.py --engine native` and `--engine torch-csr`, one thread of
# an AVX-512 server core with busy neighbours (2026-11; high figures vary most). Recurrent: batch 1 in single steps,
# batch 1 and batch 16 over 50 steps; linear: batch 1, 16, 256.
#   native     LSTM 16     50 %  5.7  3.3  1.7      LSTM 64     50 %  5.1  1.8  1.2      LSTM 512    60 %  10   2.7  1.6
#              GRU 16      50 %  3.9  17   7.9      GRU 64      50 %  3.4  7.0  3.0      GRU 512     60 %  3.3  8.2  2.8
#              Linear 256  90 %  0.7  1.2  1.9      Linear 512  70 %  1.0  1.5  1.1      Linear 1024 70 %  1.6  2.6  1.1
#   torch-csr  LSTM 512    90 %  4.9  0.9  1.3      LSTM 1024   80 %  9.0  1.0  1.0      LSTM 1024   90 %  16   1.9  1.6
#              Linear 1024 90 %  0.8  2.7  1.3      Linear 2048 80 %  1.3  4.6  1.0      Linear 2048 90 %  2.3  5.8  1.7
RULES: Mapping[tuple[str, Part], Rule] = {
    ("native", "recurrent"): Rule(weights=0, sparsity=0.6),
    ("native", "linear"): Rule(weights=512 * 512, sparsity=0.7),
    ("torch-csr", "recurrent"): Rule(weights=6 * 1024 * 1024, sparsity=0.85),
    ("torch-csr", "linear"): Rule(weights=2048 * 2048, sparsity=0.85),
    # Computed from the limits of an H100, not measured: docs/benchmarks_gpu.md.
    (TRITON, "recurrent"): Rule(weights=4 * 1024 * 1024, sparsity=0.8),
    (TRITON, "linear"): Rule(weights=2048 * 2048, sparsity=0.85),
}
# Of a layer's parameters; every other engine takes float32 alone.
DTYPES: Mapping[str, tuple[str, ...]] = {TRITON: ("torch.float32", "torch.float16", "torch.bfloat16")}


class Engines(NamedTuple):
    """What `engine=` comes to on this machine: the engine to use, whether rules may keep a layer dense, a remark."""

    name: str
    by_rules: bool
    remark: str


def resolve_engine(asked: str, device: torch.device = CPU) -> Engines:
    """`auto` is triton on CUDA, else native, or what there is instead with the reason. UsageError for an unknown engine
    or one that cannot run here."""
    if asked == "auto" and device.type == "cuda":
        reason = triton_engine.unavailable_reason()
        return Engines(TRITON, True, "") if reason is None else Engines(DENSE, False, f"no triton engine: {reason}")
    if asked == "auto":
        reason = native.unavailable_reason()
        return (
            Engines("native", True, "") if reason is None else Engines("torch-csr", True, f"no native engine: {reason}")
        )
    if asked == "native":
        native.require_native()
    elif asked == TRITON:
        triton_engine.require_triton(device)
    elif asked not in (DENSE, *PRODUCT_ENGINES):
        known = ", ".join(("auto", "native", TRITON, *PRODUCT_ENGINES, DENSE))
        raise UsageError(f"engine {asked!r} is not known; there are {known}")
    return Engines(asked, False, "")


def choose(part: Part, matrices: Mapping[str, Csr | Tensor], engines: Engines) -> Choice:
    """The engine for one layer with these matrices, in one sentence why."""
    total = sum(matrix.shape[0] * matrix.shape[1] for matrix in matrices.values())
    nnz = sum(_nnz(matrix) for matrix in matrices.values())
    sparsity = 1 - nnz / total if total else 0.0
    dense_because = _dense_because(part, matrices, engines, total, sparsity)
    if dense_because is not None:
        return Choice(DENSE, dense_because if engines.name == DENSE else _told(dense_because, engines), sparsity)
    why = f"{sparsity:.1%} of {total:,} weights are zero" if engines.by_rules else "asked for"
    return Choice(engines.name, _told(why, engines), sparsity)


def _dense_because(
    part: Part, matrices: Mapping[str, Csr | Tensor], engines: Engines, total: int, sparsity: float
) -> str | None:
    """Why a layer stays dense, or None."""
    if engines.name == DENSE:
        return engines.remark or "asked for"
    if engines.name == TRITON and (projected := [name for name in matrices if "weight_hr" in name]):
        return f"the triton engine has no LSTM with a projection ({projected[0]})"
    if broken := [name for name, matrix in matrices.items() if not _is_finite(matrix)]:
        return f"{broken[0]} holds NaN or infinite values"
    sparse_bytes = sum(csr_nbytes(_shape(matrix), _nnz(matrix), FLOAT_BYTES) for matrix in matrices.values())
    if sparse_bytes >= total * FLOAT_BYTES:
        return f"{sparsity:.1%} zeros: sparse would be larger than dense"
    rule = RULES.get((engines.name, part))
    if not engines.by_rules or rule is None:
        return None
    if total < rule.weights:
        return f"{total:,} weights: {engines.name} wins from {rule.weights:,} on"
    if sparsity < rule.sparsity:
        return f"{sparsity:.1%} zeros: {engines.name} wins from {rule.sparsity:.0%} on"
    return None


def _told(reason: str, engines: Engines) -> str:
    return f"{reason}; {engines.remark}" if engines.remark else reason


def _shape(matrix: Csr | Tensor) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]


def _nnz(matrix: Csr | Tensor) -> int:
    return matrix.nnz if isinstance(matrix, Csr) else int(matrix.count_nonzero())


def _is_finite(matrix: Csr | Tensor) -> bool:
    values = matrix.values if isinstance(matrix, Csr) else matrix
    return bool(values.to(torch.float32).isfinite().all())


def plain_problem(layer: nn.Module, expected: type[nn.Module], engine: str, device: torch.device) -> str | None:
    """Why a layer of torch cannot be replaced, whatever its weights; None when it can."""
    if type(layer) is not expected:
        return f"{type(layer).__name__} is a subclass of nn.{expected.__name__} and may do more than it"
    if isinstance(layer, nn.RNNBase):
        names = set(layer._flat_weights_names)
    else:
        names = {"weight", "bias"} if expected is nn.Linear else {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
    if surplus := sorted((set(layer._parameters) | set(layer._buffers) | set(layer._modules)) ^ names):
        return f"its weights are re-parametrised ({surplus[0]}); make them plain parameters first"
    kinds = {f"{parameter.dtype} on {parameter.device}" for parameter in layer.parameters()}
    place = device if engine == TRITON else CPU
    wanted = [f"{dtype} on {place}" for dtype in DTYPES.get(engine, ("torch.float32",))]
    if len(kinds) != 1 or not kinds <= set(wanted):
        return f"its parameters are {', '.join(sorted(kinds))}, not {' or '.join(wanted)}"
    return None
