"""`--json`: one object on stdout and nothing else, with the keys and types that scripts of users depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from rnnprune.cli.app import app
from rnnprune.tasks import template
from tests.cli.test_tag_command import write_series, write_tags
from tests.tasks.ctc.conftest import write_tones

NUMBER = (int, float)
SIZES = ("--seq-len", "20", "--batch-size", "8")
BYTES = {"dense": int, "csr": int, "bitmask": int, "file": int, "runtime": int}
SPARSITY = {"target": float, "achieved": float, "per_tensor": {"rnn.weight_hh_l0": float}}

# A minimum: keys may be added, never taken away. A list of one spec: every element has it, and there is one at least.
TRAINED = {
    "schema": int,
    "checkpoint": str,
    "metric": {"name": str, "value": float},
    "parameters": int,
    "steps": int,
    "seconds": NUMBER,
}
CONTRACT: dict[str, dict[str, Any]] = {
    "train lm": TRAINED,
    "train seq2seq": TRAINED,
    "train ctc": TRAINED,
    "train tag": TRAINED,
    "train classify": TRAINED,
    "finetune": {
        "schema": int,
        "run": str,
        "sparsity": SPARSITY,
        "metric": {"name": str, "goal": str, "dense": float, "dense_control": float, "sparse": float},
        "steps": int,
        "seconds": NUMBER,
    },
    "prune": {"schema": int, "run": str, "sparsity": SPARSITY},
    "sweep": {
        "schema": int,
        "sweep": str,
        "metric": {"name": str, "goal": str},
        "control": {"validation": {"mean": float}, "test": {"mean": float}, "bytes": int, "latency": type(None)},
        "points": [
            {
                "name": str,
                "method": str,
                "saliency": str,
                "block": str,
                "distill": bool,
                "target": float,
                "runs": [str],
                "validation": {"mean": float, "values": [float]},
                "test": {"mean": float, "values": [float]},
                "loss": float,
                "sparsity": float,
                "nonzeros": int,
                "bytes": int,
                "on_front": bool,
            }
        ],
        "left_out": {},
        "machine": {"cpu": str},
    },
    "export": {"schema": int, "source": str, "file": str, "format": str, "values": str, "bytes": int},
    "report": {
        "schema": int,
        "tensors": [
            {
                "name": str,
                "shape": [int],
                "pruned": bool,
                "reason": str,
                "nnz": int,
                "sparsity": float,
                "bytes": BYTES,
            }
        ],
        "total": {"nnz": int, "sparsity": float, "bytes": BYTES},
    },
    "bench": {
        "schema": int,
        "machine": {"cpu": str, "cores": int, "torch": str, "python": str},
        "rows": [
            {
                "op": str,
                "shape": str,
                "sparsity": float,
                "block": str,
                "dtype": str,
                "batch": int,
                "steps": int,
                "threads": int,
                "device": str,
                "engine": str,
                "median_us": float,
                "min_us": float,
                "p90_us": float,
                "iqr_us": float,
                "vs_dense": float,
                "max_error": float,
            }
        ],
    },
    "evaluate": {"schema": int, "metric": str, "value": float, "engine": str},
    "task new": {"schema": int, "path": str},
    "task check": {
        "schema": int,
        "task": str,
        "passed": bool,
        "checks": [{"name": str, "passed": bool, "detail": str}],
    },
}
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "train lm": ("--data", "letters.txt", "--out", "new.pt", "--hidden", "4", "--steps", "2", *SIZES),
    "train seq2seq": ("--data", "pairs.tsv", "--out", "new.pt", "--hidden", "4", "--steps", "2"),
    "train ctc": ("--data", "tones.tsv", "--out", "new.pt", "--hidden", "4", "--steps", "2"),
    "train tag": (
        "--data",
        "data.tsv",
        "--out",
        "new.pt",
        "--hidden",
        "4",
        "--steps",
        "2",
        "--level",
        "char",
        "--skip-bad",
    ),
    "train classify": ("--data", "data.jsonl", "--out", "new.pt", "--hidden", "4", "--steps", "2"),
    "finetune": ("ckpt.pt", "--out", "new", "--steps", "20", "--control", *SIZES),
    "prune": ("ckpt.pt", "--out", "new"),
    "sweep": (
        *("ckpt.pt", "--targets", "0.5", "--methods", "hard", "--seeds", "1", "--steps", "3", "--jobs", "1"),
        *("--rounds", "0", *SIZES),
    ),
    "export": (),
    "report": (),
    "bench": ("--rounds", "2", "--time-steps", "3", "--batch", "1,2"),
    "evaluate": (),
    "task new": ("my_task.py",),
    "task check": ("rnnprune.tasks.template:make", "template.pt"),
}
QUIET = {"prune", "task new", "task check"}  # these have nothing to say beside their answer


def differences(found: Any, spec: Any, where: str = "") -> list[str]:
    """Every place where an answer falls short of its spec."""
    if isinstance(spec, Mapping):
        if not isinstance(found, Mapping):
            return [f"{where}: not an object"]
        missing = [f"{where}.{key}: missing" for key in spec if key not in found]
        return missing + [
            d for key in spec if key in found for d in differences(found[key], spec[key], f"{where}.{key}")
        ]
    if isinstance(spec, list):
        if not isinstance(found, list) or not found:
            return [f"{where}: not a list with something in it"]
        return [d for i, each in enumerate(found) for d in differences(each, spec[0], f"{where}[{i}]")]
    allowed = spec if isinstance(spec, tuple) else (spec,)
    return [] if type(found) in allowed else [f"{where}: {found!r} is a {type(found).__name__}"]


@pytest.fixture(autouse=True)
def _other_inputs(folder: Path) -> None:
    """What is not part of the finished run: a checkpoint of the template, and the data of the other tasks."""
    write_tones(folder)
    write_tags(folder)
    write_series(folder)
    torch.save(template.make().build_model().state_dict(), folder / "template.pt")


@pytest.fixture(autouse=True)
def _pairs(folder: Path) -> None:
    (folder / "pairs.tsv").write_text("".join(f"a{i}\tb{i}\n" for i in range(100)))


def commands() -> set[str]:
    program: Any = typer.main.get_command(app)
    return {
        f"{name} {sub}" if hasattr(command, "commands") else name
        for name, command in program.commands.items()
        for sub in getattr(command, "commands", [""])
    }


def test_every_command_is_in_the_contract_and_has_the_flag() -> None:
    assert commands() == set(CONTRACT)


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("command", CONTRACT)
def test_the_answer_has_these_keys_and_types(rnnprune: Callable[..., Any], command: str) -> None:
    told = rnnprune(*command.split(), *ARGUMENTS[command], "--json")
    answer = told.json
    assert answer["schema"] == 1
    assert differences(answer, CONTRACT[command]) == []
    assert told.out.count("\n") == 1, "one object, on one line"
    assert bool(told.err) != (command in QUIET), "progress and hints go to stderr"


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("command", CONTRACT)
def test_without_the_flag_there_is_text_for_people(rnnprune: Callable[..., Any], command: str) -> None:
    told = rnnprune(*command.split(), *ARGUMENTS[command])
    assert told.code == 0, told.err
    assert told.out.strip()
    assert not told.out.startswith("{")
    assert "\x1b" not in told.out + told.err


def test_progress_of_both_phases_is_told_on_stderr(finished: Any) -> None:
    err = finished.told["finetune"].err
    assert "training on 40/40" in err
    assert "pruning 40/40" in err
    assert "steps/s, loss " in err
    assert "sparsity 0.900" in err
    assert "s left" in err
    assert "the checkpoint, before: bpc " in err
    assert "sparse: bpc " in err
    assert "training 20/20" in finished.told["train lm"].err


def test_without_a_control_its_figure_is_null(rnnprune: Callable[..., Any], finished: Any) -> None:
    metric = rnnprune("finetune", "ckpt.pt", "--out", "new", "--steps", "20", *SIZES, "--json").json["metric"]
    assert metric["dense_control"] is None
    assert metric["dense"] == finished.told["finetune"].json["metric"]["dense"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "missing.pt"),
        ("evaluate", "bare.pt"),
        ("finetune", "bare.pt"),
        ("prune", "bare.pt", "--target", "1.5"),
        ("bench", "bare.pt", "--engines", "warp"),
        ("export",),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.usefixtures("bare")
def test_an_error_leaves_stdout_empty(rnnprune: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    told = rnnprune(*arguments, "--json")
    assert told.code == 2
    assert told.out == ""
    assert told.err.startswith("rnnprune: ")


@pytest.mark.usefixtures("finished")
def test_a_benchmark_of_chosen_engines_still_has_its_dense_rival(rnnprune: Callable[..., Any]) -> None:
    rows = rnnprune("bench", "--rounds", "1", "--time-steps", "2", "--engines", "scipy-csr", "--json").json["rows"]
    assert {row["engine"] for row in rows} == {"torch-dense-fp32", "scipy-csr"}
    matrices = {("matvec", shape) for shape in ("64x8", "64x16", "11x16")}
    assert {(row["op"], row["shape"]) for row in rows} == {*matrices, ("lstm", "8->16")}
    assert all(row["vs_dense"] == 1.0 for row in rows if row["engine"] == "torch-dense-fp32")
    assert all(row["max_error"] < 1e-5 for row in rows)
    assert {row["steps"] for row in rows if row["op"] == "lstm"} == {1, 2}
