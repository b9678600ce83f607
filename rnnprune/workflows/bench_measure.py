"""One case of a benchmark: its rivals prepared, checked against float64, and timed in interleaved rounds."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field

from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels import native
from rnnprune.workflows import rivals_native, rivals_onnx
from rnnprune.workflows.bench_bound import bound
from rnnprune.workflows.bench_rows import Case, Row, SameAgain
from rnnprune.workflows.probe import cache_sizes, probe_machine
from rnnprune.workflows.rivals import (
    CSR,
    DENSE,
    INT8,
    SPARSE_ENGINES,
    Prepare,
    Prepared,
    Work,
    rotate,
    torch_rivals,
    truth,
)
from rnnprune.workflows.timing import Timing, interleave

ENGINE_NAMES = (
    DENSE,
    INT8,
    *(engine.name for engine in SPARSE_ENGINES),
    rivals_onnx.NAME,
    *rivals_native.variant_names(),
)
AGAIN = "dense again"
TIMES_THE_CACHE = 3  # so many last-level caches of weights are walked through before the first copy comes again
MOST_COPIES = 1024
CANNOT_RUN = (RuntimeError, AttributeError, NotImplementedError, UsageError)  # what torch raises where int8 is missing


@dataclass(frozen=True)
class Measured:
    """What became of one case. `left_out`: engine -> reason."""

    rows: list[Row] = field(default_factory=list)
    same_again: list[SameAgain] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def check_engines(engines: tuple[str, ...]) -> None:
    """UsageError for a name that no engine of the CPU has, and for the native engine where it was not built."""
    for name in engines:
        if name not in ENGINE_NAMES and not (rivals_native.is_native(name) and rivals_native.parse_variant(name)):
            close = difflib.get_close_matches(name, ENGINE_NAMES, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(f"--engines: unknown {name}; {hint}there are {', '.join(ENGINE_NAMES)}")
        if rivals_native.is_native(name):
            native.require_native()


def case_of(work: Work, memory: bool) -> Case:
    """The part of a row that all its rivals share."""
    piece = work.piece
    return Case(
        op=piece.op,
        shape=piece.shape,
        sparsity=piece.sparsity,
        block="x".join(map(str, piece.block)),
        batch=work.batch,
        steps=work.steps,
        threads=work.threads,
        weights="memory" if memory else "cache",
        name=piece.name,
        alike=piece.alike,
    )


def choose_rivals(work: Work, engines: tuple[str, ...]) -> tuple[dict[str, Prepare], dict[str, str]]:
    """The rivals asked for (none: all) by the name of what runs, dense always first; and those left out, with why."""
    found = {name: each for name, each in torch_rivals(work).items() if not engines or name == DENSE or name in engines}
    left_out = {}
    if not engines or rivals_onnx.NAME in engines:
        reason = rivals_onnx.unavailable_reason()
        if reason is None:
            found[rivals_onnx.NAME] = lambda: rivals_onnx.prepare(work)
        else:
            left_out[rivals_onnx.NAME] = reason
    asked = tuple(filter(rivals_native.is_native, engines))
    if asked or not engines:
        variants, reasons = rivals_native.native_rivals(work, asked)
        found |= variants
        left_out |= reasons
    return found, left_out


def measure(work: Work, engines: tuple[str, ...], rounds: int, memory: bool) -> Measured:
    """Rows for every rival that runs, and dense against itself."""
    if memory and work.piece.stack is not None and not work.streaming:
        return Measured(
            left_out={"all engines": f"a sequence of {work.steps} finds its weights in the cache after one step"}
        )
    rivals, left_out = choose_rivals(work, engines)
    rivals[AGAIN] = rivals[DENSE]
    ready: dict[str, Prepared] = {}
    for name, prepare in rivals.items():
        try:
            ready[name] = ready_to_time(prepare, memory)
        except CANNOT_RUN as error:
            left_out[name] = str(error).partition("\n")[0][:160]
    if DENSE not in ready or AGAIN not in ready:
        left_out.pop(AGAIN, None)
        return Measured(left_out=left_out)
    timings = interleave({name: each.call for name, each in ready.items()}, rounds)
    again, expected = timings.pop(AGAIN), truth(work)
    check = SameAgain(case_of(work, memory), timings[DENSE], again)
    rows = [_row(work, memory, name, ready[name], timings, expected) for name in timings]
    return Measured(rows, [check], left_out)


def ready_to_time(prepare: Prepare, memory: bool) -> Prepared:
    """Prepared and run once; with `memory`, in as many copies as push each other out of the cache."""
    first = prepare()
    first.call()
    if not memory:
        return first
    to_walk_through = TIMES_THE_CACHE * cache_sizes()[-1]
    copies = max(2, math.ceil(to_walk_through / max(1, first.nbytes)))
    if copies > MOST_COPIES:
        least = math.ceil(to_walk_through / MOST_COPIES)
        raise UsageError(
            f"--memory: less than {least:,} bytes of weights; more than {MOST_COPIES:,} copies are too many"
        )
    return rotate(prepare, first, copies)


def default_sparse_engine(work: Work) -> str:
    """The engine to look at where one is enough."""
    if native.unavailable_reason() is not None:
        return CSR
    layout = rivals_native.BLOCKS.get(work.piece.block, "auto")
    return f"{rivals_native.NAME}:{layout}"


def _row(work: Work, memory: bool, name: str, ready: Prepared, timings: dict[str, Timing], expected: Tensor) -> Row:
    timing = timings[name]

    def ratio(rival: str) -> float | None:
        return timings[rival].median_us / timing.median_us if rival in timings else None

    return Row(
        case=case_of(work, memory),
        engine=name,
        timing=timing,
        vs_dense=timings[DENSE].median_us / timing.median_us,
        vs_csr=ratio(CSR),
        vs_int8=ratio(INT8),
        max_error=max_error(ready.output(), expected),
        nbytes=ready.nbytes,
        bound=bound(probe_machine(work.threads), work, name, ready.nbytes, memory),
    )


def max_error(output: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected output."""
    largest = float(expected.abs().amax())
    return float((output.double() - expected).abs().amax()) / (largest or 1.0)
