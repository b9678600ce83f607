"""`rnnprune evaluate --engine`: what ran is told, on stdout in short and on stderr layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("finished")
SPARSE = "ckpt-s90/model.csr.safetensors"


def test_the_engine_asked_for_is_told_with_its_layers(rnnprune: Callable[..., Any]) -> None:
    told = rnnprune("evaluate", SPARSE, "--engine", "torch-csr", "--json")
    assert told.json["engine"] == "torch-csr"
    assert [(layer["name"], layer["engine"]) for layer in told.json["layers"]] == [
        ("rnn", "torch-csr"),
        ("output", "torch-csr"),
    ]
    assert "rnn (LSTM): torch-csr, asked for" in told.err
    assert "(torch-csr)" in rnnprune("evaluate", SPARSE, "--engine", "torch-csr").out


def test_an_unknown_engine_is_a_usage_error(rnnprune: Callable[..., Any]) -> None:
    told = rnnprune("evaluate", SPARSE, "--engine", "warp")
    assert told.code == 2
    assert told.out == ""


def test_no_engine_is_chosen_silently(rnnprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnprune.kernels.native._REASON", "the C extension was not built")
    told = rnnprune("evaluate", SPARSE)
    assert told.code == 0
    assert "no native engine: the C extension was not built" in told.err
    told = rnnprune("evaluate", SPARSE, "--engine", "native")
    assert told.code == 2
    assert "the native engine is unavailable: the C extension was not built" in told.err
    assert rnnprune("bench", SPARSE, "--engines", "native:16x1").code == 2
    assert "No native engine here, torch.sparse runs sparse layers: the C extension" in rnnprune("report", SPARSE).out
