"""One latency for a whole file: which layers count, and which engines may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rnnprune.workflows import latency
from rnnprune.workflows.bench_measure import Measured, measure
from rnnprune.workflows.latency import measure_latency
from rnnprune.workflows.rivals import Work


def saved(module: nn.Module, folder: Path) -> Path:
    torch.save(module.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def test_the_recurrent_layers_are_timed_and_layers_alike_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[str, Measured]] = []

    def spy(work: Work, engines: tuple[str, ...], rounds: int, memory: bool) -> Measured:
        timed.append((work.piece.op, measure(work, engines, rounds, memory)))
        return timed[-1][1]

    monkeypatch.setattr(latency, "measure", spy)
    model = nn.ModuleDict({"a": nn.GRU(6, 8), "b": nn.GRU(6, 8), "c": nn.LSTM(6, 8), "out": nn.Linear(8, 9)})
    found = measure_latency(saved(model, tmp_path), threads=1, rounds=1)
    assert found is not None
    assert [op for op, _ in timed] == ["gru", "lstm"], "one for both of the GRUs, and no linear layer"
    dense = [row.timing.median_us for _, measured in timed for row in measured.rows if row.engine == "torch-dense-fp32"]
    assert found.dense_us == pytest.approx(2 * dense[0] + dense[1])
    int8 = [row.timing.median_us for _, measured in timed for row in measured.rows if row.engine == "torch-dense-int8"]
    assert found.int8_us == pytest.approx(2 * int8[0] + int8[1])
    best = [min(row.timing.median_us for row in measured.rows if row.dtype == "fp32") for _, measured in timed]
    assert found.us == pytest.approx(2 * best[0] + best[1])
    assert not any("int8" in engine for engine in found.engines)


def test_a_layer_that_torch_cannot_quantize_leaves_int8_without_a_figure(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.GRU(6, 8), "b": nn.RNN(6, 8)})
    found = measure_latency(saved(model, tmp_path), threads=1, rounds=1)
    assert found is not None
    assert found.int8_us is None
    assert found.dense_us > 0


def test_a_model_without_recurrent_layers_has_its_matrices_timed(tmp_path: Path) -> None:
    found = measure_latency(saved(nn.Linear(8, 9), tmp_path), threads=1, rounds=1)
    assert found is not None
    assert found.us > 0
    assert measure_latency(saved(nn.BatchNorm1d(3), tmp_path), threads=1, rounds=1) is None
