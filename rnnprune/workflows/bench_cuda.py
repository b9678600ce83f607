"""`rnnprune bench --device cuda`: dense in its best forms, cuSPARSE and this package's kernels, timed with CUDA events.

What a rival raises becomes a row of its own, and the others go on. That holds for everything but an error that leaves
the GPU unusable (an illegal access): then all later rows say so, and the earlier ones stand.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rnnprune.kernels.cuda_graph import Clock, event_clock
from rnnprune.kernels.triton_engine import triton_version
from rnnprune.workflows.bench_measure import case_of, max_error
from rnnprune.workflows.bench_rows import Benchmark, Case, Failed, Row, describe
from rnnprune.workflows.machine import describe_machine
from rnnprune.workflows.probe_cuda import GpuProbe, gpu_bound, l2_bytes_of, probe_gpu
from rnnprune.workflows.rivals import CSR, DENSE, Prepared, Work, truth
from rnnprune.workflows.rivals_cuda import check_cuda_engines, cuda_rivals
from rnnprune.workflows.timing import WARM_UP_ROUNDS, Timing, summarise

SAMPLE_US = 1000.0  # of one sample: events resolve half a microsecond
MOST_CALLS = 200
LONGEST_ERROR = 200

Sample = Callable[[Callable[[], object], int], float]  # microseconds per call, over so many calls


@dataclass(frozen=True)
class Gpu:
    """Where things run and how they are timed: a test brings its own clocks."""

    device: torch.device
    clock: Clock
    sample: Sample
    l2_bytes: int


def this_gpu() -> Gpu:
    """The current CUDA device and its events."""
    device = torch.device("cuda", torch.cuda.current_device())
    return Gpu(device, event_clock, event_sample, l2_bytes_of(device))


def bench_cuda(
    path: Path | None,
    works: Iterator[Work],
    engines: tuple[str, ...],
    rounds: int,
    tell: Callable[[str], None],
    gpu: Gpu | None = None,
) -> Benchmark:
    """Rows for every work, rivals interleaved. UsageError for an engine that CUDA has not."""
    check_cuda_engines(engines)
    gpu = gpu or this_gpu()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # on by default, and then there is no fp32 to compare with
    machine = {**describe_machine(), **_describe(gpu.device)}
    probe = probe_gpu(gpu.device, gpu.clock, gpu.l2_bytes)
    rows: list[Row] = []
    failed: list[Failed] = []
    for work in works:
        found, missing = measure_cuda(work, engines, rounds, gpu, probe)
        rows += found
        failed += missing
        tell(f"timed {describe(case_of_cuda(work))}: {len(found)} rows, {len(missing)} failed")
    return Benchmark(path, tuple(rows), {**machine, "gpu_probe": probe.to_json()}, (), failed=tuple(failed))


def case_of_cuda(work: Work) -> Case:
    """The part of a row that all its rivals share."""
    return replace(case_of(work, memory=False), device="cuda")


def measure_cuda(
    work: Work, engines: tuple[str, ...], rounds: int, gpu: Gpu, probe: GpuProbe
) -> tuple[list[Row], list[Failed]]:
    """Prepare, run, check and time all rivals of one work."""
    case, expected = case_of_cuda(work), truth(work)
    expected = expected[: work.steps] if work.piece.stack else expected
    ready: dict[str, Prepared] = {}
    errors: dict[str, float] = {}
    failed: list[Failed] = []
    for name, prepare in cuda_rivals(work, engines, gpu.device).items():
        try:
            prepared = prepare()
            errors[name] = max_error(prepared.output(), expected)
            ready[name] = prepared
        except Exception as error:
            # A compiler, a library and a driver each raise their own kinds; none may end the run.
            failed.append(Failed(case, name, _first_line(error)))
    try:
        timings = interleave_samples({name: each.call for name, each in ready.items()}, rounds, gpu.sample)
    except Exception as error:  # the GPU is gone
        return [], [*failed, *(Failed(case, name, _first_line(error)) for name in ready)]
    if DENSE not in timings:
        return [], [*failed, *(Failed(case, name, f"ran, but {DENSE} to compare with did not") for name in timings)]
    rows = [
        Row(
            case=case,
            engine=name,
            timing=timing,
            vs_dense=timings[DENSE].median_us / timing.median_us,
            vs_csr=timings[CSR].median_us / timing.median_us if CSR in timings else None,
            vs_int8=None,
            max_error=errors[name],
            nbytes=ready[name].nbytes,
            bound=gpu_bound(probe, work, ready[name].nbytes),
        )
        for name, timing in timings.items()
    ]
    return rows, failed


def interleave_samples(calls: Mapping[str, Callable[[], object]], rounds: int, sample: Sample) -> dict[str, Timing]:
    """Microseconds per call, in rounds that start with another rival each time; short calls are repeated."""
    names = list(calls)
    repeats = {name: _repeats(sample(calls[name], 3)) for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(WARM_UP_ROUNDS + rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            us = sample(calls[name], repeats[name])
            if round_ >= WARM_UP_ROUNDS:
                samples[name].append(us)
    return {name: summarise(values) for name, values in samples.items()}


def event_sample(call: Callable[[], object], repeats: int) -> float:
    """Microseconds per call between two events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3 / repeats


def _repeats(us: float) -> int:
    return max(1, min(MOST_CALLS, math.ceil(SAMPLE_US / max(us, 1e-3))))


def _first_line(error: Exception) -> str:
    """What happened; a compiler's message begins with where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}"[:LONGEST_ERROR]


def _describe(device: torch.device) -> dict[str, Any]:
    """The GPU and the versions that shape a result."""
    if device.type != "cuda":
        return {"gpu": f"none ({device})"}
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "compute_capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
        "driver": _driver(),
        "triton": triton_version(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.splitlines()[0].strip() if found else "unknown"
