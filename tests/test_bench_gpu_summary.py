"""The summary that a first run on a GPU prints, from made-up results."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SUMMARY = runpy.run_path(str(ROOT / "examples" / "bench_gpu_summary.py"))


def row(engine: str, us: float, **more: Any) -> dict[str, Any]:
    base = {
        "op": "gru", "shape": "1760->1760", "sparsity": 0.9, "block": "1x1", "batch": 1, "steps": 100,
        "mode": "sequence",
        "dtype": "fp32", "engine": engine, "median_us": us, "bound_us": 300.0, "max_error": 1e-7, "suspect": False,
        "best_dense": "torch-dense-fp32:graph", "vs_best_dense": 1200.0 / us,
    }  # fmt: skip
    return base | more


def test_goals_are_held_against_the_best_dense_and_the_better_of_cusparse(tmp_path: Path) -> None:
    rows = [
        row("torch-dense-fp32:graph", 1200.0), row("torch-csr", 5000.0), row("torch-csr:graph", 1000.0),
        row("triton:sell", 400.0), row("triton:16x1", 480.0, block="16x1", suspect=True),
        row("triton:sell", 50.0, steps=1, mode="step"),
    ]  # fmt: skip
    failed = [{"op": "gru", "shape": "1760->1760", "engine": "torch-csr", "error": "RuntimeError: no"}]
    (tmp_path / "gru.1.json").write_text(json.dumps({"rows": rows, "failed": failed}), encoding="utf-8")
    reached, missed, step, failure = SUMMARY["summary"](tmp_path)
    assert reached.startswith(
        "gru.1: gru 1760->1760 90% 1x1 batch 1 sequence: triton:sell 4.00 us a step, 75% of bound"
    )
    assert "3.00 x torch-dense-fp32:graph / 2.5, 2.50 x torch-csr (missed 3); error" in reached
    assert "2.50 x torch-dense-fp32:graph / 3 missed; error 1e-07 SUSPECT" in missed
    assert "/" not in step.partition("x torch-dense")[2].partition(";")[0]
    assert failure == "gru.1: FAILED gru 1760->1760 torch-csr: RuntimeError: no"
    assert SUMMARY["summary"](tmp_path / "nothing") == ["no results"]


def test_without_a_gpu_the_script_says_so_and_measures_nothing(tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "examples" / "bench_gpu.sh"), str(tmp_path / "out")]
    run = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "PYTHON": "false"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "nothing can be measured here; install a CUDA build of torch" in run.stderr
    assert list((tmp_path / "out").iterdir()) == []
