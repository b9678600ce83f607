"""Every rival does the same work: its output is the float64 one, for matrices, sequences and streams."""

from __future__ import annotations

import pytest
import torch

from rnnprune.errors import UsageError
from rnnprune.kernels import native
from rnnprune.workflows import rivals_native, rivals_onnx
from rnnprune.workflows.bench_bound import bound
from rnnprune.workflows.bench_measure import ENGINE_NAMES, check_engines, choose_rivals, max_error, ready_to_time
from rnnprune.workflows.bench_pieces import Piece, parse_shapes, random_piece
from rnnprune.workflows.probe import Level, Probe, cache_sizes, probe_machine
from rnnprune.workflows.rivals import CSR, DENSE, INT8, Work, make_work, truth

needs_native = pytest.mark.skipif(native.unavailable_reason() is not None, reason="the C extension is not built")
TOLERANCE = {"fp32": 1e-6, "int8": 0.2}


def piece(shape: str, sparsity: float = 0.7, block: tuple[int, int] = (1, 1)) -> Piece:
    return random_piece(parse_shapes(shape)[0], sparsity, block)


def projected() -> Piece:
    layer = torch.nn.LSTM(6, 12, proj_size=5).requires_grad_(False)
    base = piece("lstm:6x12")
    assert base.stack is not None
    stack = base.stack.__class__("", "lstm", 6, 12, 5, 1, False, True, False)
    return Piece("6->12", 0.0, (1, 1), layer.state_dict(), stack)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("shape", ["17x33", "rnn:6x12", "gru:6x12", "lstm:6x12", "projected"])
def test_every_rival_computes_the_same(shape: str, steps: int, batch: int) -> None:
    work = make_work(projected() if shape == "projected" else piece(shape), batch, steps, threads=1)
    rivals, _ = choose_rivals(work, ())
    assert {DENSE, CSR, "scipy-csr"} <= rivals.keys()
    expected = truth(work)
    with torch.inference_mode():
        for name, prepare in rivals.items():
            try:
                ready = ready_to_time(prepare, memory=False)
            except (RuntimeError, AttributeError, NotImplementedError):
                can_not = {("projected", INT8), ("projected", rivals_onnx.NAME)}
                assert (shape, name) in can_not or (shape, steps, name) == ("rnn:6x12", 5, INT8)
                continue
            for _ in range(3):  # a stream moves on, and its check starts afresh
                ready.call()
            output = ready.output()
            assert output.shape == expected.shape, name
            assert max_error(output, expected) < TOLERANCE["int8" if "int8" in name else "fp32"], name
            assert ready.nbytes > 0


@needs_native
@pytest.mark.parametrize("shape", ["40x33", "gru:8x24"])
def test_native_runs_in_the_layout_of_the_blocks_and_is_named_after_what_ran(shape: str) -> None:
    work = make_work(piece(shape, block=(16, 1)), 1, 1, threads=1)
    rivals, left_out = choose_rivals(work, ("native",))
    assert list(rivals)[:3] == [DENSE, "native:16x1", "native:16x1:int8"]
    assert len(rivals) == 4
    assert list(rivals)[3] in {"native:window", "native:sell8"}, "auto is no name of a row"
    assert left_out == {}
    for name, tolerance in (("native:16x1", 1e-6), ("native:16x1:int8", 0.2)):
        assert max_error(rivals[name]().output(), truth(work)) < tolerance


@needs_native
def test_a_variant_may_name_its_instruction_set_and_a_missing_one_is_left_out_with_the_reason() -> None:
    work = make_work(piece("16x16"), 1, 1, threads=1)
    rivals, left_out = choose_rivals(work, ("native:sell8:baseline", "native:auto:baseline"))
    assert list(rivals) == [DENSE, "native:sell8:baseline"]
    assert left_out == {}
    for isa in set(rivals_native.INSTRUCTION_SETS) - set(native.instruction_sets()):
        assert f"this processor has no {isa}" in choose_rivals(work, (f"native:{isa}",))[1].popitem()[1]


def test_without_the_extension_native_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable_reason", lambda: "the C extension was not built")
    rivals, left_out = choose_rivals(make_work(piece("8x8"), 1, 1, 1), ("native:16x1",))
    assert list(rivals) == [DENSE]
    assert left_out == {"native": "the C extension was not built"}


def test_native_asked_for_by_name_is_refused_where_it_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_REASON", "the C extension was not built")
    for name in ("native", "native:16x1"):
        with pytest.raises(UsageError, match="the native engine is unavailable: the C extension was not built"):
            check_engines((name,))


def test_without_onnxruntime_it_is_left_out_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(rivals_onnx, "import_module", missing)
    rivals, left_out = choose_rivals(make_work(piece("8x8"), 1, 1, 1), (rivals_onnx.NAME,))
    assert list(rivals) == [DENSE]
    assert left_out == {rivals_onnx.NAME: "onnx is not installed (pip install onnx onnxruntime)"}


@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_every_name_in_the_list_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "require_native", lambda: None)  # known, whether or not it was built
    check_engines((name,))


@pytest.mark.parametrize("name", ["warp", "native:9x9", "native:sell9", "native:int8", "nativ", "torch-csr:avx2"])
def test_an_unknown_engine_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--engines: unknown {name}; .*there are torch-dense-fp32, .*native:sell8"):
        check_engines((name,))


def test_from_memory_every_call_takes_the_next_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnprune.workflows.bench_measure.cache_sizes", lambda: (1, 1, 1024))
    made: list[int] = []
    work = make_work(piece("16x16"), 1, 1, 1)
    dense = choose_rivals(work, (DENSE,))[0][DENSE]

    def prepare() -> object:
        made.append(len(made))
        return dense()

    ready = ready_to_time(prepare, memory=True)  # type: ignore[arg-type]
    assert len(made) == 3, "three caches of 1024 bytes, 1024 bytes of weights"
    assert max_error(ready.output(), truth(work)) < 1e-6
    ready.call()
    monkeypatch.setattr("rnnprune.workflows.bench_measure.cache_sizes", lambda: (1, 1, 2**40))
    with pytest.raises(UsageError, match=r"less than 3,221,225,472 bytes of weights; more than 1,024 copies"):
        ready_to_time(prepare, memory=True)  # type: ignore[arg-type]


# The bound


def made_up(threads: int = 1) -> Probe:
    """1e9 loads a second, 32e9, 16e9, 8e9 and 4e9 bytes a second."""
    levels = (Level("L1", 1e3, 32e9), Level("L2", 1e4, 16e9), Level("L3", 1e5, 8e9), Level("memory", float("inf"), 4e9))
    return Probe(threads, 1e9, levels)


def full(shape: str, batch: int = 1, steps: int = 1, threads: int = 1) -> Work:
    return make_work(piece(shape, sparsity=0.0), batch, steps, threads)


def test_the_bound_is_the_slower_of_loads_and_bytes() -> None:
    work = full("32x32")  # 1024 nonzeros
    assert bound(made_up(), work, "native:sell8", 1, False) == (pytest.approx(1024 * 1.125 / 1e3), "loads")
    assert bound(made_up(), work, "native:16x1", 1, False).us == pytest.approx(1024 * (1 / 16 + 1 / 8) / 1e3)
    assert bound(made_up(), work, "torch-dense-fp32", 1, False).us == pytest.approx(1024 / 8 / 1e3)
    assert bound(made_up(), work, "torch-dense-fp32", 50_000, False) == (pytest.approx(50 / 8), "bytes from L3")
    assert bound(made_up(), work, "torch-dense-fp32", 5_000, True) == (pytest.approx(5 / 4), "bytes from memory")


def test_threads_share_the_work_and_steps_repeat_it() -> None:
    one = bound(made_up(), full("32x32"), "native:sell8", 1, False).us
    assert bound(made_up(2), full("32x32", threads=2), "native:sell8", 1, False).us == pytest.approx(one / 2)
    step = bound(made_up(), full("rnn:32x32"), "native:sell8", 1, False).us
    assert step == pytest.approx(2 * one)
    sequence = bound(made_up(), full("rnn:32x32", steps=10), "native:sell8", 1, False).us
    assert 10 * one < sequence < 10 * step, "the input product of a sequence is one batch"


def test_the_probe_measures_positive_rates() -> None:
    probe = probe_machine(1)
    assert probe.loads_per_second > 1e6
    assert [level.name for level in probe.levels] == ["L1", "L2", "L3", "memory"]
    assert all(level.bandwidth > 1e6 for level in probe.levels)
    assert probe.level(1.0).name == "L1"
    assert probe.level(1e12).name == probe.level(1.0, memory=True).name == "memory"
    assert all(size > 0 for size in cache_sizes())
    assert probe.to_json().keys() == {"threads", "gloads_per_core", "gbytes_per_core"}
