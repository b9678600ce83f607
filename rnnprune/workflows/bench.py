"""`rnnprune bench`: this model's recurrent layers, dense against sparse, on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.workflows.machine import describe_machine, set_threads
from rnnprune.workflows.rivals import DENSE, ENGINE_NAMES, Work, layer_work, matrix_work
from rnnprune.workflows.subject import Subject, open_subject
from rnnprune.workflows.timing import Timing, interleave


@dataclass(frozen=True)
class BenchRequest:
    """`steps`: time steps of a sequence. `engines` empty: all; the dense rival always runs, since ratios need it."""

    path: Path | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    steps: int = 100
    rounds: int = 20
    engines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One engine on one piece of work. `engine` is what really ran; `max_error` is relative to the largest output."""

    op: str
    shape: str
    sparsity: float
    batch: int
    steps: int
    threads: int
    engine: str
    timing: Timing
    vs_dense: float
    max_error: float

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        row = {key: value for key, value in asdict(self).items() if key != "timing"}
        return {**row, "block": "1x1", "dtype": "int8" if "int8" in self.engine else "fp32", "device": "cpu"} | asdict(
            self.timing
        )


@dataclass(frozen=True)
class Benchmark:
    """All rows, the machine they were measured on, and what was left out with the reason."""

    path: Path
    rows: tuple[Row, ...]
    machine: dict[str, Any]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "path": str(self.path),
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True)
class Piece:
    """One piece of work: what is multiplied, how sparse it is."""

    op: str
    shape: str
    sparsity: float
    work: Work


def bench(request: BenchRequest) -> Benchmark:
    """Time every distinct recurrent layer and its recurrent matrix. The rivals of a row are interleaved."""
    _check(request)
    subject = open_subject(request.path)
    if not subject.stacks:
        raise UsageError(f"{subject.path}: no recurrent layer was recognised; `rnnprune report` says why")
    threads_before = torch.get_num_threads()
    rows: list[Row] = []
    left_out: dict[str, None] = {}
    try:
        with torch.inference_mode():
            for threads, batch in itertools.product(request.threads or (threads_before,), request.batches):
                set_threads(threads)
                for piece in _pieces(subject, batch, request.steps):
                    rows += _measure(piece, request, batch, threads)
                    left_out |= {f"{engine}, {piece.op}: {why}": None for engine, why in piece.work.left_out.items()}
    finally:
        torch.set_num_threads(threads_before)
    return Benchmark(subject.path, tuple(rows), describe_machine(), tuple(left_out))


def _check(request: BenchRequest) -> None:
    if unknown := [engine for engine in request.engines if engine not in ENGINE_NAMES]:
        raise UsageError(f"--engines: unknown {', '.join(unknown)}; there are {', '.join(ENGINE_NAMES)}")
    for flag, values in (("--batch", request.batches), ("--steps", (request.steps,)), ("--rounds", (request.rounds,))):
        if any(value < 1 for value in values):
            raise UsageError(f"{flag} must be at least 1, found {', '.join(map(str, values))}")


def _pieces(subject: Subject, batch: int, steps: int) -> Iterator[Piece]:
    """Layers of the same kind and sizes are timed once: the first of them stands for all."""
    state_dict = subject.checkpoint.state_dict()
    seen = set()
    for stack in subject.stacks:
        key = (stack.kind, stack.input_size, stack.hidden_size, stack.proj_size)
        if key in seen:
            continue
        seen.add(key)
        dot, end = f"{stack.prefix}." if stack.prefix else "", "" if stack.is_cell else "_l0"
        weight_ih, weight_hh = (state_dict[f"{dot}weight_{which}{end}"] for which in ("ih", "hh"))
        rows, cols = weight_hh.shape
        yield Piece("matvec", f"{rows}x{cols}", _sparsity(weight_hh), matrix_work(weight_hh, batch))
        both = torch.cat([weight_ih.flatten(), weight_hh.flatten()])
        work = layer_work(stack, state_dict, batch, steps)
        yield Piece(stack.kind, f"{stack.input_size}->{stack.hidden_size}", _sparsity(both), work)


def _measure(piece: Piece, request: BenchRequest, batch: int, threads: int) -> list[Row]:
    candidates = {
        name: call
        for name, call in piece.work.candidates.items()
        if not request.engines or name == DENSE or name in request.engines
    }
    timings = interleave(candidates, request.rounds)
    steps = 1 if piece.op == "matvec" else request.steps
    return [
        Row(
            op=piece.op,
            shape=piece.shape,
            sparsity=piece.sparsity,
            batch=batch,
            steps=steps,
            threads=threads,
            engine=name,
            timing=timings[name],
            vs_dense=timings[DENSE].median_us / timings[name].median_us,
            max_error=_max_error(call(), piece.work.truth),
        )
        for name, call in candidates.items()
    ]


def _sparsity(tensor: Tensor) -> float:
    return 1.0 - int(tensor.count_nonzero()) / tensor.numel()


def _max_error(output: Tensor, truth: Tensor) -> float:
    largest = float(truth.abs().amax())
    return float((output.double() - truth).abs().amax()) / (largest or 1.0)
