"""docs/benchmarks.md shows what the raw figures beside it say, and the script that makes both can be interrupted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("bench_goals")


@pytest.fixture
def tables(script: ModuleType) -> Any:
    return script.bench_tables


def answer(native_us: float = 20.0, native_error: float = 2e-7, dense_iqr: float = 1.0, **case: Any) -> dict[str, Any]:
    """What `bench --json` prints for 1760x1760: dense takes 100 us, torch.sparse 50, int8 40."""
    case = {
        **{"op": "matvec", "shape": "1760x1760", "sparsity": 0.9, "block": "1x1", "batch": 1, "steps": 1},
        **{"threads": 1, "weights": "cache"},
        **case,
    }

    def row(engine: str, us: float, iqr: float = 1.0, error: float = 1e-7, nbytes: int = 160) -> dict[str, Any]:
        dtype = "int8" if "int8" in engine else "fp32"
        more = {"median_us": us, "iqr_us": iqr, "max_error": error, "suspect": error > 1e-5 and dtype == "fp32"}
        bound = {"bound_us": us / 2, "bound_by": "loads", "bytes": nbytes, "mode": "product"}
        return {**case, "engine": engine, "dtype": dtype, "noisy": iqr / us > 0.25, **more, **bound}

    rows = [
        row("torch-dense-fp32", 100.0, dense_iqr, nbytes=1000), row("torch-dense-int8", 40.0, error=2e-2),
        row("torch-csr", 50.0), row("native:window", native_us, error=native_error), row("native:sell8", 80.0),
        row("native:16x1:int8", 5.0, error=6e-3, nbytes=30), row("native:wrong", 1.0, error=0.1),
    ]  # fmt: skip
    return {"rows": rows, "same_again": [{**case, "ratio": 1.02, "spread": 0.03}], "break_even": []}


def cells(table: str, start: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [line for line in lines if line[0].startswith(start)]


def test_every_table_of_the_page_is_that_of_the_raw_figures(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_tables(page, script.read_answers(script.RESULTS)) == page, "run examples/bench_goals.py render"
    touched = page.replace("| case | threads |", "| case | threads, edited |")
    assert script.with_tables(touched, script.read_answers(script.RESULTS)) == page


def test_a_row_shows_both_runs_the_goal_and_in_bold_what_one_of_them_missed(tables: Any) -> None:
    runs = [answer(20.0), answer(25.0, native_error=1.2e-6, dense_iqr=30.0)]
    (row,) = cells(tables.goals({"matrix-1760": runs}), "1760x1760, batch 1, in cache")
    assert row == [
        *("1760x1760, batch 1, in cache", "1", "window", "20.0, 25.0", "5.00, 4.00~ / 4.2 (at least 3.5)"),
        *("2.50, 2.00 / 1.9 (at least 1.75)", "**2.00, 1.60 / 1.9**", "", "50%, 50%: loads", "**1.2e-06**", "16.0%"),
        "1.02 (3%), 1.02 (3%)",
    ]


def test_int8_values_are_held_to_their_own_goal_and_bytes(tables: Any) -> None:
    runs = [answer(weights="memory", block="16x1")]
    (row,) = cells(tables.goals({"blocks-int8-memory": runs}), "1760x1760, int8 blocks")
    assert (row[2], row[6], row[9], row[10]) == ("16x1:int8", "8.00 / 6", "6.0e-03", "3.0% / 3.2%")
    (row,) = cells(tables.int8_errors({"blocks-16x1": runs}), "1760x1760, 90% zeros in blocks 16x1")
    assert row[1:] == ["16x1:int8", "6.0e-03", "2.0e-02", "8.00", "20.0"]


def test_a_rival_that_did_not_run_leaves_its_goal_open_and_a_missing_file_its_row(tables: Any) -> None:
    runs = [answer(op="gru", shape="1760->1760", steps=100, threads=2)]
    one, two = cells(tables.goals({"gru-1760-2-threads": runs}), "GRU 1760, batch 1")
    assert one[2:] == ["not measured", *[""] * 9]
    assert two[7] == "not measured / 5.5"


def test_losing_cases_are_those_in_which_any_run_loses(tables: Any) -> None:
    assert tables.losing({"small": [answer(20.0)]}) == "(none)"
    lost = cells(tables.losing({"small": [answer(20.0), answer(45.0)]}), "1760x1760")
    assert lost == [["1760x1760, 90% zeros, batch 1, 1 thread", "window", "against dynamic int8: 2.00, 0.89"]]


def test_break_even_points_of_both_runs_stand_together(tables: Any) -> None:
    case = {"op": "lstm", "shape": "4->8", "block": "1x1", "batch": 1, "steps": 9, "threads": 1, "weights": "cache"}
    never = {**case, "engine": "native:window", "rival": "torch-dense-int8"}
    runs = [{"break_even": [{**never, "sparsity": 0.34}]}, {"break_even": [never]}]
    assert cells(tables.break_even({"break-even": runs}), "LSTM") == [
        ["LSTM 4->8", "sequence of 9, batch 1, 1 thread", "against dynamic int8", "34% (window), never (window)"]
    ]


def test_every_goal_has_a_measurement_and_every_missed_one_is_told_of(script: ModuleType, tables: Any) -> None:
    assert {goal.measurement for goal in tables.GOALS} < script.MEASUREMENTS.keys()
    page = script.PAGE.read_text(encoding="utf-8")
    tried = page.partition("## What was tried for the missed rows")[2].partition("\n## ")[0]
    missed = {goal.case for goal in tables.GOALS if tables.is_missed(goal, script.read_answers(script.RESULTS))}
    assert {case for case in missed if f"- {case}" not in tried} == set()
    assert tables.is_missed(tables.GOALS[0], {"matrix-1760": [answer(45.0)]})
    assert not tables.is_missed(tables.GOALS[0], {"matrix-1760": [answer(20.0)]})


def test_what_is_there_is_not_measured_again_and_a_failure_leaves_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, missing = tmp_path / "small-1.json", tmp_path / "new" / "small-2.json"
    there.write_text("{}", encoding="utf-8")
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        ran.append(command)
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(subprocess, "run", run)
    script.measure("small", there, None)
    assert ran == []
    with pytest.raises(subprocess.CalledProcessError):
        script.measure("small", missing, "2")
    assert ran[0][1:5] == ["-m", "rnnprune", "bench", "--shapes"]
    assert ran[0][-2:] == ["--rounds", "2"]
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.slow
def test_a_measurement_is_the_command_and_its_answer(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(script.MEASUREMENTS, "tiny", "--shapes 16x8 --threads 1 --rounds 1 --engines torch-csr")
    monkeypatch.setattr(sys, "argv", ["bench_goals", "measure", "--run", "2", "--results", str(tmp_path), "tiny"])
    script.main()
    (path,) = tmp_path.iterdir()
    told = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "tiny-2.json"
    assert told["command"] == "rnnprune bench --shapes 16x8 --threads 1 --rounds 1 --engines torch-csr --json"
    assert [row["engine"] for row in told["rows"]] == ["torch-dense-fp32", "torch-csr"]
    assert len(json.dumps(told["rows"][0]["median_us"])) <= 6, "four digits"
    assert "vs_int8" not in told["rows"][0], "nothing was measured for it"
    assert told["break_even"] == []
