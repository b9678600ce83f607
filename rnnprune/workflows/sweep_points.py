"""From the finished cells of a sweep to the points of its frontier: figures over the seeds, bytes, latency."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from rnnprune.formats.options import ExportFormat
from rnnprune.pruning.options import SINGLE_WEIGHT
from rnnprune.tasks.options import Split
from rnnprune.workflows.export import export
from rnnprune.workflows.frontier import Point, Spread
from rnnprune.workflows.latency import Latency, measure_latency
from rnnprune.workflows.made_run import Manifest
from rnnprune.workflows.report import report
from rnnprune.workflows.side_by_side import Tell
from rnnprune.workflows.sweep_grid import CONTROL, Setting


class Measuring(NamedTuple):
    """metric: the name of the figure. rounds, threads: of the timing; 0 rounds: none."""

    metric: str
    rounds: int
    threads: int


class Stored(NamedTuple):
    """One exported file: its nonzeros and bytes, those of the same tensors dense, and how fast it runs."""

    nonzeros: int
    bytes: int
    dense_nonzeros: int
    dense_bytes: int
    latency: Latency | None


Made = dict[Path, Manifest]  # finished cells, by their folders


def pruned_point(setting: Setting, cells: Made, measuring: Measuring, tell: Tell) -> tuple[Point, Stored]:
    """One setting over the seeds that finished; its first cell is exported and timed."""
    tell(f"measuring {setting}")
    form: ExportFormat = "csr" if setting.block == SINGLE_WEIGHT else "bsr"
    first = next(iter(cells))
    exported = export(first, form)
    pruned = report(first).pruned
    latency = measure_latency(exported.path, measuring.threads, measuring.rounds) if measuring.rounds else None
    stored = Stored(pruned.nnz, exported.bytes, pruned.shape[0], exported.dense_bytes, latency)
    plain = {
        "method": setting.method,
        "saliency": setting.saliency,
        "block": str(setting.block),
        "distill": setting.taught,
    }
    point = Point(
        name=str(setting),
        setting={**plain, "target": setting.target},
        runs=tuple(map(str, cells)),
        validation=_spread(cells, "sparse", "validation", measuring.metric),
        test=_spread(cells, "sparse", "test", measuring.metric),
        sparsity=statistics.fmean(manifest["sparsity"]["achieved"] for manifest in cells.values()),
        nonzeros=stored.nonzeros,
        bytes=stored.bytes,
        steps=max(manifest["steps"] for manifest in cells.values()),
        latency=latency,
    )
    return point, stored


def control_point(cells: Made, stored: list[Stored], measuring: Measuring) -> Point:
    """The dense model trained on: its bytes are those of float32, its latency the median of the timings beside it."""
    timed = [each.latency.dense_us for each in stored if each.latency is not None]
    spread = max((each.latency.spread for each in stored if each.latency is not None), default=0.0)
    dense_us = statistics.median(timed) if timed else None
    return Point(
        name=CONTROL,
        setting={"method": None, "saliency": None, "block": None, "distill": False, "target": 0.0},
        runs=tuple(map(str, cells)),
        validation=_spread(cells, "dense_control", "validation", measuring.metric),
        test=_spread(cells, "dense_control", "test", measuring.metric),
        sparsity=0.0,
        nonzeros=stored[0].dense_nonzeros,
        bytes=stored[0].dense_bytes,
        steps=max(manifest["steps"] for manifest in cells.values()),
        latency=None if dense_us is None else Latency(dense_us, dense_us, ("torch-dense-fp32",), spread),
    )


def _spread(cells: Made, label: str, split: Split, metric: str) -> Spread:
    """A figure that was not finite is null in a manifest."""
    found = [manifest["figures"][label][split][metric] for manifest in cells.values()]
    return Spread(tuple(float("nan") if value is None else float(value) for value in found))
