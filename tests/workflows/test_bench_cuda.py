"""All of `bench --device cuda` but the GPU: on the CPU, with clocks that are arguments, and kernels interpreted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rnnprune.cli import render_bench
from rnnprune.errors import GoalMissed, UsageError
from rnnprune.kernels.reference import Layer, gru_step, lstm_step
from rnnprune.workflows import bench_cuda, rivals_cuda
from rnnprune.workflows.bench import BenchRequest, bench
from rnnprune.workflows.bench_cuda import Gpu, interleave_samples
from rnnprune.workflows.bench_measure import max_error
from rnnprune.workflows.bench_pieces import Piece, parse_shapes, random_piece
from rnnprune.workflows.bench_rows import Benchmark, Case, Row
from rnnprune.workflows.probe_cuda import GpuProbe, gpu_bound, probe_gpu
from rnnprune.workflows.published import published_for
from rnnprune.workflows.rivals import Work, make_work, truth
from rnnprune.workflows.rivals_cuda import check_cuda_engines, cuda_rivals, fused_loop
from rnnprune.workflows.timing import Timing
from tests.kernels.triton_cases import DEVICE, needs_triton

CPU = torch.device("cpu")
DENSE = "torch-dense-fp32"
PROBE = GpuProbe(1.0, 1000, 1e9, 1e8)  # a byte a nanosecond from L2, ten from memory
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="plays a GPU on the CPU")


def work_of(shape: str, batch: int = 1, steps: int = 1, block: tuple[int, int] = (1, 1)) -> Work:
    return make_work(random_piece(parse_shapes(shape)[0], 0.7, block), batch, steps, threads=1)


class Clock:
    """Runs the work once; every sample lasts one microsecond longer than the one before."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self, work: Callable[[], object], repeats: int = 1) -> float:  # noqa: ARG002
        work()
        self.now += 1.0
        return self.now


def fake_gpu() -> Gpu:
    return Gpu(CPU, Clock(), Clock(), 2**16)


# What is compared


@needs_triton
@pytest.mark.parametrize(
    ("work", "triton"),
    [
        (work_of("5x9"), {"triton:sell", "triton:sell:fp16"}),
        (
            work_of("16x4", block=(16, 1)),
            {f"triton:{name}{end}" for name in ("16x1", "sell") for end in ("", ":fp16")},
        ),
        (work_of("gru:3x1", steps=2), {"triton:sell", "triton:sell:fp16"}),
        (work_of("lstm:3x1", batch=8), {"triton:sell", "triton:sell:fp16"}),
    ],
    ids=["matrix", "blocks", "sequence", "batch 8"],
)
def test_every_rival_computes_the_same_eager_and_replayed(
    monkeypatch: pytest.MonkeyPatch, work: Work, triton: set[str]
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    layer = work.piece.stack is not None
    dense = {DENSE, f"{DENSE}:tf32", "torch-dense-fp16"} | ({"torch-dense-fp16:pad8"} if work.batch % 8 else set())
    dense |= {f"{name}:addmm" for name in dense} if layer else set()
    rivals = cuda_rivals(work, (), DEVICE)
    bases = dense | triton | {"torch-csr"}
    assert next(iter(rivals)) == DENSE
    assert set(rivals) == bases | {f"{name}:graph" for name in bases}
    expected = truth(work)[: work.steps] if layer else truth(work)
    with torch.inference_mode():
        for name, prepare in rivals.items():
            if ":addmm" in name and DEVICE == CPU:  # the gate kernels exist on CUDA alone; see below
                continue
            ready = prepare()
            output = ready.output()
            assert output.dtype == torch.float32
            assert output.shape == expected.shape, name
            assert max_error(output, expected) < (1e-2 if "fp16" in name or "tf32" in name else 1e-6), name
            assert ready.nbytes > 0


def equations(kind: str) -> rivals_cuda.GateKernel:
    """torch's fused gate kernels as equations, on [B, gates]."""

    def run(x: Tensor, h: Tensor, state: tuple[Tensor, ...], b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, ...]:
        layer = Layer(kind, lambda _: h.T, lambda _: h.T, b_ih.unsqueeze(1), b_hh.unsqueeze(1))  # type: ignore[arg-type]
        step, parts = (lstm_step, state) if kind == "lstm" else (gru_step, state[:1])
        return tuple(part.T for part in step(layer, (x + b_ih).T, tuple(part.T for part in parts)))

    return run


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_the_loop_of_addmm_is_the_layer(kind: str) -> None:
    work = work_of(f"{kind}:5x7", batch=3, steps=4)
    gate_kernel = rivals_cuda.torch_gate_kernel("rnn") if kind == "rnn" else equations(kind)
    assert max_error(fused_loop(work.piece, gate_kernel)(work.x), truth(work)) < 1e-6


def test_the_fused_gate_kernels_of_torch_take_what_the_loop_gives() -> None:
    """On the CPU they exist in name alone: their signatures can still be held to."""
    for name, parts in (("lstm", 2), ("gru", 1)):
        schema = getattr(torch.ops.aten, f"_thnn_fused_{name}_cell").default._schema
        assert [argument.name for argument in schema.arguments][:2] == ["input_gates", "hidden_gates"]
        assert [argument.name for argument in schema.arguments][3:] == ["input_bias", "hidden_bias"]
        assert len(schema.returns) == parts + 1


@pytest.mark.parametrize("name", ["torch-dense-int8", "native", "triton:sell9", "tritonn", "torch-csr:pad8"])
def test_an_unknown_engine_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"--engines: unknown {name}; on cuda there are torch-dense-fp32, .*with :graph"
    ):
        check_cuda_engines((name,))


def test_engines_asked_for_are_found_by_name() -> None:
    work = work_of("16x8", block=(8, 4))
    check_cuda_engines(("triton", "triton:sell:bf16:u4w2:graph", "torch-csr:graph", "torch-dense-fp16:pad8"))
    assert list(cuda_rivals(work, ("triton:sell:bf16:u4w2:graph",), CPU)) == [DENSE, "triton:sell:bf16:u4w2:graph"]
    assert list(cuda_rivals(work, ("torch-csr",), CPU)) == [DENSE, "torch-csr"]
    both = {"triton:8x4", "triton:8x4:fp16", "triton:sell", "triton:sell:fp16"}
    assert set(cuda_rivals(work, ("triton",), CPU)) == {DENSE} | both | {f"{name}:graph" for name in both}
    assert set(cuda_rivals(work, ("triton:graph",), CPU)) == {DENSE} | {f"{name}:graph" for name in both}


# A run


@on_cpu
def test_a_rival_that_fails_is_a_row_of_its_own_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        rivals_cuda.triton_engine, "require_triton", lambda _: (_ for _ in ()).throw(OSError("no ptxas\nat"))
    )
    works = iter([work_of("8x6"), work_of("gru:4x6", steps=2)])
    result = bench_cuda.bench_cuda(None, works, (), 2, told.append, fake_gpu())
    failed = {(each.case.op, each.engine): each.error for each in result.failed}
    assert failed["matvec", "triton:sell"] == "OSError: no ptxas"
    assert failed["gru", f"{DENSE}:addmm"].startswith("NotImplementedError: Could not run 'aten::_thnn_fused_gru_cell'")
    engines = {row.engine for row in result.rows if row.case.op == "gru"}
    assert {DENSE, f"{DENSE}:graph", "torch-csr:graph"} <= engines
    assert not engines & {engine for op, engine in failed if op == "gru"}
    assert told[0].startswith("timed matvec 8x6, 7")
    answer = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {row["device"] for row in answer["rows"]} == {"cuda"}
    assert {each["engine"] for each in answer["failed"]} == {engine for _, engine in failed}
    assert all(row["bound_us"] > 0 and row["best_dense"].startswith("torch-dense") for row in answer["rows"])


@on_cpu
@pytest.mark.parametrize("lost", [DENSE, "everything"])
def test_without_a_dense_rival_or_a_gpu_the_rows_say_so(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    def broken(_: Callable[[], object], __: int) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    gpu = fake_gpu()
    if lost == "everything":
        gpu = replace(gpu, sample=broken)
    else:
        monkeypatch.setattr(rivals_cuda, "_dense_call", lambda *_: 1 / 0)
    rows, failed = bench_cuda.measure_cuda(work_of("8x6"), (DENSE, "torch-csr"), 1, gpu, PROBE)
    assert rows == []
    errors = {each.engine: each.error for each in failed}
    assert errors.keys() == {DENSE, "torch-csr"}
    if lost == "everything":
        assert errors["torch-csr"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    else:
        assert errors[DENSE] == "ZeroDivisionError: division by zero"
        assert errors["torch-csr"] == f"ran, but {DENSE} to compare with did not"


def test_short_calls_are_repeated_and_rivals_take_turns() -> None:
    asked: list[tuple[str, int]] = []

    def sample(call: Callable[[], object], repeats: int) -> float:
        name = str(call())
        asked.append((name, repeats))
        return {"short": 10.0, "long": 1e6, "none": 0.0}[name]

    timings = interleave_samples({name: lambda name=name: name for name in ("short", "long", "none")}, 2, sample)
    assert asked[:3] == [("short", 3), ("long", 3), ("none", 3)]
    assert dict(asked[3:]) == {"short": 100, "long": 1, "none": 200}
    assert [name for name, _ in asked[3:9]] == ["short", "long", "none", "long", "none", "short"]
    assert timings["short"] == Timing(10.0, 10.0, 10.0, 0.0)


# What is concluded


CASE = Case("lstm", "8->8", 0.9, "1x1", 1, 100, 1, device="cuda")


def row(engine: str, us: float, case: Case = CASE) -> Row:
    return Row(case, engine, Timing(us, us, us, 0.0), 100.0 / us, None, None, 1e-7, 8)


def test_the_dense_engine_to_beat_is_the_fastest_whose_weights_are_as_wide() -> None:
    other = replace(CASE, batch=8)
    rows = (
        row(DENSE, 100.0), row(f"{DENSE}:tf32:graph", 60.0), row("torch-dense-fp16:pad8", 40.0),
        row("torch-dense-fp16", 1.0, other), row("triton:sell", 20.0), row("triton:sell:fp16", 10.0),
    )  # fmt: skip
    answer = {each["engine"]: each for each in Benchmark(None, rows, {}, ()).to_json()["rows"] if each["batch"] == 1}
    assert answer["triton:sell"]["best_dense"] == f"{DENSE}:tf32:graph"
    assert answer["triton:sell"]["vs_best_dense"] == 3.0
    assert answer["triton:sell:fp16"]["best_dense"] == "torch-dense-fp16:pad8"
    assert answer["triton:sell:fp16"]["vs_best_dense"] == 4.0
    assert answer["triton:sell:fp16"]["dtype"] == "fp16"
    assert answer[DENSE]["vs_best_dense"] == 0.6
    goal = Benchmark(None, tuple(each for each in rows if each.case == CASE and each.dtype == "fp32"), {}, ())
    goal.require_speedup(3.0)
    with pytest.raises(GoalMissed, match=r"triton:sell, the best sparse engine, is 3\.00 times"):
        goal.require_speedup(3.1)


def test_the_bound_is_launches_and_bytes_by_hand() -> None:
    def full(shape: str, steps: int) -> Work:
        piece = random_piece(parse_shapes(shape)[0], 0.0)
        return make_work(piece, 1, steps, 1)

    assert gpu_bound(PROBE, full("8x8", 1), 256) == (pytest.approx(1.0 + 0.256), "launches and bytes from L2")
    assert gpu_bound(PROBE, full("8x8", 1), 2000) == (pytest.approx(1.0 + 20.0), "launches and bytes from memory")
    layer = gpu_bound(PROBE, full("rnn:8x8", 10), 800)  # half of the weights once, half ten times
    assert layer.us == pytest.approx(11.0 + 0.4 + 4.0)


def test_the_probe_divides_by_launches_and_counts_reading_and_writing() -> None:
    probe = probe_gpu(CPU, lambda work: (work(), 64.0)[1], l2_bytes=8 * 1024)
    assert probe.launch_us == 1.0
    assert probe.l2_bandwidth == pytest.approx(2 * 1024 / 63.0 * 1e6)
    assert probe.memory_bandwidth == pytest.approx(2 * 64 * 1024 / 64.0 * 1e6)
    assert probe.to_json().keys() == {"launch_us", "l2_mbytes", "gbytes_l2", "gbytes_memory"}


def test_published_ratios_stand_beside_their_shape_at_batch_1_alone() -> None:
    known = published_for("7680x2560", 0.9499, 1)
    assert known is not None
    assert known.ratio == 6.25
    assert published_for("7680x2560", 0.95, 8) is None
    assert published_for("1760x1760", 0.95, 1) is None


def test_a_table_for_people_shows_failures_and_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("matvec", "7680x2560", 0.95, "1x1", 1, 1, 1, device="cuda")
    rows = (row(DENSE, 100.0, case), row(f"{DENSE}:graph", 50.0, case), row("triton:sell", 10.0, case))
    failed = (bench_cuda.Failed(case, "torch-csr", "RuntimeError: no cuSPARSE"),)
    machine = {"gpu": "a GPU", "torch": "9", "gpu_probe": PROBE.to_json()}
    render_bench.show(Benchmark(None, rows, machine, (), failed=failed), json=False, plot=False)
    told = capsys.readouterr().out
    assert "x best dense" in " ".join(told.split())
    assert "5.00" in told
    assert "published: 6.25 times dense (DeepBench" in told
    assert "failed: torch-csr, matvec 7680x2560, 95.0% zeros, batch 1: RuntimeError: no cuSPARSE" in told
    assert "probe: 1.00 us per launch in a graph; GB/s from L2 1, memory 0" in told
    assert "a GPU, torch 9" in told
    assert "triton:sell: 5x torch-dense-fp32:graph (matvec 7680x2560, batch 1)" in told


@pytest.mark.parametrize("more", [{"memory": True}, {"break_even": True}])
def test_flags_of_the_cpu_are_refused(monkeypatch: pytest.MonkeyPatch, more: dict[str, bool]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match="--device cuda: --memory and --break-even are for the CPU alone"):
        bench(BenchRequest(shapes="8x8", device="cuda", **more))


def test_what_has_no_meaning_for_a_work_is_not_tried() -> None:
    piece = random_piece(parse_shapes("lstm:4x6")[0], 0.5)
    assert piece.stack is not None
    projected = Piece("4->6", 0.5, (1, 1), piece.tensors, replace(piece.stack, proj_size=3))
    assert not any(":addmm" in name for name in cuda_rivals(make_work(projected, 1, 2, 1), (), CPU))
    assert not any(":pad8" in name for name in cuda_rivals(work_of("4x6", batch=8), (), CPU))
