"""How long a model's recurrent layers take, dense and with its zeros used: one figure for a whole file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rnnprune.kernels import native
from rnnprune.workflows.bench_measure import measure
from rnnprune.workflows.bench_pieces import Piece, pieces_of
from rnnprune.workflows.bench_rows import Row
from rnnprune.workflows.machine import set_threads
from rnnprune.workflows.rivals import CSR, DENSE, INT8, make_work
from rnnprune.workflows.subject import open_subject

STEPS, BATCH = 100, 1


class Latency(NamedTuple):
    """Microseconds for one sequence of STEPS at batch 1 through every recurrent layer, one after the other; of a model
    without such layers, for one product with every matrix. Sums of medians.

    us: with the fastest engine for each layer; dense_us, int8_us: torch dense fp32, and its dynamic int8 (None where
    torch has none for some layer), in the same interleaved rounds. spread: the widest distance between the quartiles of
    a layer, relative to its median.
    """

    us: float
    dense_us: float
    engines: tuple[str, ...]
    spread: float
    int8_us: float | None = None

    def to_json(self) -> dict[str, Any]:
        """One `latency` object."""
        return {**self._asdict(), "engines": list(self.engines), "vs_dense": self.dense_us / self.us}


def measure_latency(path: Path, threads: int, rounds: int) -> Latency | None:
    """Of a checkpoint, run folder or sparse file; None where it has no layer that can be timed."""
    pieces = list(pieces_of(open_subject(path)))
    layers = [piece for piece in pieces if piece.stack is not None] or pieces
    before = torch.get_num_threads()
    try:
        set_threads(threads)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
            timed = [(1 + len(piece.alike), _rows(piece, threads, rounds)) for piece in layers]
    finally:
        torch.set_num_threads(before)
    if not timed or not all(rows for _, rows in timed):
        return None
    best = [(count, min(filter(_counts, rows), key=lambda row: row.timing.median_us)) for count, rows in timed]
    return Latency(
        us=sum(count * row.timing.median_us for count, row in best),
        dense_us=_sum_of(DENSE, timed) or 0.0,
        engines=tuple(dict.fromkeys(row.engine for _, row in best)),
        spread=max(row.timing.spread for _, row in best),
        int8_us=_sum_of(INT8, timed),
    )


def _rows(piece: Piece, threads: int, rounds: int) -> Sequence[Row]:
    engines = (INT8, CSR) if native.unavailable_reason() else (INT8, CSR, "native")
    return measure(make_work(piece, BATCH, STEPS, threads), engines, rounds, memory=False).rows


def _counts(row: Row) -> bool:
    """Engines that keep float32 and compute the right thing: the metric was measured with such a one."""
    return row.dtype == "fp32" and (row.engine == DENSE or not row.is_suspect)


def _sum_of(engine: str, timed: Sequence[tuple[int, Sequence[Row]]]) -> float | None:
    """Of one engine over all layers; None where it does not run one of them."""
    found = [(count, row) for count, rows in timed for row in rows if row.engine == engine]
    return sum(count * row.timing.median_us for count, row in found) if len(found) == len(timed) else None
