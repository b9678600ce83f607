"""`rnnprune bench --device cuda`: torch's dense forms against torch.sparse, timed with CUDA events.

This file has NOT run on hardware: it was written where no CUDA device was at hand. Look at `max_error` before believing
a figure, and report what breaks.

    torch-dense-fp32, torch-dense-fp32:tf32, torch-dense-fp16    eager, and with :graph in a CUDA graph
    torch-csr                                                    cuSPARSE, float32; layers as a loop in Python
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels import torch_csr
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.workflows.bench_measure import case_of, max_error
from rnnprune.workflows.bench_rows import Benchmark, Row
from rnnprune.workflows.machine import describe_machine
from rnnprune.workflows.rivals import CSR, DENSE, Work, loop_engine, torch_module, truth
from rnnprune.workflows.timing import WARM_UP_ROUNDS, Timing, summarise

TF32, FP16, GRAPH = f"{DENSE}:tf32", "torch-dense-fp16", ":graph"
CUDA_NAMES = (DENSE, DENSE + GRAPH, TF32, TF32 + GRAPH, FP16, FP16 + GRAPH, CSR)
CALLS_PER_SAMPLE = 10

Call = Callable[[], Tensor]


def bench_cuda(path: Path | None, works: Iterator[Work], engines: tuple[str, ...], rounds: int) -> Benchmark:
    """Rows for every work, rivals interleaved. UsageError for an engine that CUDA has not."""
    if unknown := [name for name in engines if name not in CUDA_NAMES]:
        raise UsageError(f"--engines: unknown {', '.join(unknown)}; on cuda there are {', '.join(CUDA_NAMES)}")
    rows: list[Row] = []
    left_out: dict[str, None] = {}
    torch.backends.cudnn.allow_tf32 = False  # on by default, and then there is no fp32 to compare with
    for work in works:
        calls: dict[str, Call] = {}
        for name in [name for name in CUDA_NAMES if not engines or name == DENSE or name in engines]:
            try:
                calls[name] = _graphed(_call(work, name)) if name.endswith(GRAPH) else _call(work, name)
                calls[name]()
            except RuntimeError as error:
                calls.pop(name, None)
                left_out[f"{name}, {work.piece.op}: {str(error).partition(chr(10))[0][:160]}"] = None
        if DENSE in calls:
            rows += _rows(work, calls, rounds)
    machine = {**describe_machine(), "gpu": torch.cuda.get_device_name()}
    return Benchmark(path, tuple(rows), machine, tuple(left_out))


def _rows(work: Work, calls: dict[str, Call], rounds: int) -> list[Row]:
    timings, expected = _interleave(calls, rounds), truth(work)
    case = replace(case_of(work, memory=False), device="cuda")
    nnz = sum(int(weight.count_nonzero()) for weight in work.piece.matrices.values())
    numel = sum(weight.numel() for weight in work.piece.matrices.values())
    return [
        Row(
            case=case,
            engine=name,
            timing=timing,
            vs_dense=timings[DENSE].median_us / timing.median_us,
            vs_csr=timings[CSR].median_us / timing.median_us if CSR in timings else None,
            vs_int8=None,
            max_error=max_error(calls[name]().cpu(), expected[: work.steps] if work.piece.stack else expected),
            nbytes=8 * nnz if name == CSR else numel * (2 if name.startswith(FP16) else 4),
        )
        for name, timing in timings.items()
    ]


def _call(work: Work, name: str) -> Call:
    """The work on the GPU, [rows, B] or [T, B, outputs]; a stream is timed as a sequence of one step."""
    dtype = torch.float16 if name.startswith(FP16) else torch.float32
    on_gpu = replace(work.piece, tensors={key: tensor.to("cuda", dtype) for key, tensor in work.piece.tensors.items()})
    x = work.x.to("cuda", dtype)
    if work.piece.stack is None:
        weight, rows = on_gpu.tensors["weight"], x.T.contiguous()
        product = torch_csr.pack(csr_from_dense(weight)) if name == CSR else None
        call: Call = (lambda: product(x)) if product else (lambda: F.linear(rows, weight).T)
    elif name == CSR:
        run, frames = loop_engine(torch_csr.ENGINE, on_gpu).run, x[: work.steps]
        call = lambda: run(frames)  # noqa: E731
    else:
        module, frames = torch_module(work.piece).to("cuda", dtype), x[: work.steps]
        call = lambda: module(frames)[0]  # noqa: E731
    return _with_tf32(call) if name.startswith(TF32) else call


def _with_tf32(call: Call) -> Call:
    def wrapped() -> Tensor:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            return call()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return wrapped


def _graphed(call: Call) -> Call:
    """The call captured in a CUDA graph, after the warm-up on another stream that capturing needs."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_ROUNDS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def _interleave(calls: dict[str, Call], rounds: int) -> dict[str, Timing]:
    """Microseconds per call between two events, in rounds that start with another rival each time."""
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(WARM_UP_ROUNDS + rounds):
        for name in np.roll(np.array(names, dtype=object), round_).tolist():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            for _ in range(CALLS_PER_SAMPLE):
                calls[name]()
            end.record()
            torch.cuda.synchronize()
            if round_ >= WARM_UP_ROUNDS:
                samples[name].append(start.elapsed_time(end) * 1e3 / CALLS_PER_SAMPLE)
    return {name: summarise(values) for name, values in samples.items()}
