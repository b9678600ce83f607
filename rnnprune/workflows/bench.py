"""`rnnprune bench`: dense against sparse, on a model's own layers or on given shapes, on this machine."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from rnnprune.errors import UsageError
from rnnprune.pruning.options import parse_block
from rnnprune.workflows.bench_measure import check_engines, measure
from rnnprune.workflows.bench_pieces import PAPER_SPARSITY, UNSTRUCTURED, Piece, parse_shapes, pieces_of, random_piece
from rnnprune.workflows.bench_rows import Benchmark, BreakEven, Row, SameAgain, describe
from rnnprune.workflows.break_even import find_break_even
from rnnprune.workflows.machine import describe_machine, find_device, set_threads
from rnnprune.workflows.probe import probe_machine
from rnnprune.workflows.rivals import Work, make_work
from rnnprune.workflows.subject import open_subject

MOST_BREAK_EVEN_ROUNDS = 9


@dataclass(frozen=True)
class BenchRequest:
    """`steps`: of a sequence, timed beside single steps; 1: single steps only.

    `shapes`: see bench_pieces; `sparsity` and `block` belong to it. `engines` empty: all; the dense rival always runs,
    since ratios need it. `memory`: the weights come from memory instead of the caches.
    """

    path: Path | None = None
    shapes: str | None = None
    sparsity: tuple[float, ...] = ()
    block: str | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    steps: int = 100
    rounds: int = 20
    engines: tuple[str, ...] = ()
    memory: bool = False
    break_even: bool = False
    device: str = "cpu"


def ignore(_: str) -> None:
    """No one is told of the progress."""


def bench(request: BenchRequest, tell: Callable[[str], None] = ignore) -> Benchmark:
    """Time every piece of work with all its rivals, interleaved; `tell` hears what is timed next.

    Raises UsageError for flags that contradict each other and where nothing can be timed.
    """
    _check(request)
    path, pieces = _pieces(request, tell)
    threads_before = torch.get_num_threads()
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
            if find_device(request.device).type == "cuda":
                from rnnprune.workflows.bench_cuda import bench_cuda  # nobody without a GPU should wait for it

                return bench_cuda(path, _works(request, pieces), request.engines, request.rounds, tell)
            return _bench_cpu(path, _works(request, pieces), request, tell)
    finally:
        torch.set_num_threads(threads_before)


def _bench_cpu(
    path: Path | None, works: Iterator[Work], request: BenchRequest, tell: Callable[[str], None]
) -> Benchmark:
    rows: list[Row] = []
    same_again: list[SameAgain] = []
    break_even: list[BreakEven] = []
    left_out: dict[tuple[str, str], dict[str, None]] = {}
    threads: dict[int, None] = {}
    for work in works:
        set_threads(work.threads)
        threads[work.threads] = None
        measured = measure(work, request.engines, request.rounds, request.memory)
        rows += measured.rows
        same_again += measured.same_again
        for reason in measured.left_out.items():
            left_out.setdefault(reason, {})[work.piece.op] = None
        if measured.rows:
            tell(f"timed {describe(measured.rows[0].case)}")
            if request.break_even:
                rounds = min(request.rounds, MOST_BREAK_EVEN_ROUNDS)
                break_even += find_break_even(work, request.engines, rounds, request.memory)
    remarks = tuple(f"{engine}, {', '.join(ops)}: {why}" for (engine, why), ops in left_out.items())
    if not rows:
        raise UsageError(f"nothing could be timed: {'; '.join(remarks)}")
    machine = {**describe_machine(), "probe": [probe_machine(count).to_json() for count in threads]}
    return Benchmark(path, tuple(rows), machine, remarks, tuple(same_again), tuple(break_even))


def _works(request: BenchRequest, pieces: Iterator[Piece]) -> Iterator[Work]:
    """Every piece with every number of threads and every batch; layers as a sequence and as a stream."""
    counts = request.threads or (torch.get_num_threads(),)
    for piece in pieces:
        modes = (1,) if piece.stack is None else dict.fromkeys((request.steps, 1))
        for threads, batch, steps in itertools.product(counts, request.batches, modes):
            yield make_work(piece, batch, steps, threads)


def _pieces(request: BenchRequest, tell: Callable[[str], None]) -> tuple[Path | None, Iterator[Piece]]:
    if request.shapes is not None:
        return None, _random_pieces(request, request.shapes)
    subject = open_subject(request.path)
    if request.path is None:
        tell(f"newest run: {subject.path}")
    pieces = pieces_of(subject)
    if (first := next(pieces, None)) is None:
        raise UsageError(
            f"{subject.path}: no recurrent layer and no linear matrix was recognised; `rnnprune report` says why"
        )
    return subject.path, itertools.chain((first,), pieces)


def _random_pieces(request: BenchRequest, text: str) -> Iterator[Piece]:
    default = PAPER_SPARSITY if "paper" in text.split(",") else (0.9,)
    for shape, sparsity in itertools.product(parse_shapes(text), request.sparsity or default):
        yield random_piece(shape, sparsity, _block_of(request))


def _block_of(request: BenchRequest) -> tuple[int, int]:
    return UNSTRUCTURED if request.block is None else parse_block(request.block)


def _check(request: BenchRequest) -> None:
    if request.device == "cpu":
        check_engines(request.engines)
    elif find_device(request.device).type == "cuda" and (request.memory or request.break_even):
        raise UsageError(f"--device {request.device}: --memory and --break-even are for the CPU alone")
    counts = {"--batch": request.batches, "--time-steps": (request.steps,), "--rounds": (request.rounds,)}
    for flag, values in (counts | {"--threads": request.threads}).items():
        if any(value < 1 for value in values):
            raise UsageError(f"{flag} must be at least 1, found {', '.join(map(str, values))}")
    if any(not 0 <= sparsity < 1 for sparsity in request.sparsity):
        raise UsageError(f"--sparsity must lie in 0 to below 1, found {', '.join(map(str, request.sparsity))}")
    if request.shapes is None:
        if request.sparsity or request.block:
            raise UsageError(
                "--sparsity and --block belong to the random weights of --shapes; a model has its own zeros"
            )
    elif request.path is not None:
        raise UsageError(f"either {request.path} or --shapes {request.shapes}, not both")
    else:
        parse_shapes(request.shapes)
        _block_of(request)
