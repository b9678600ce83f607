"""The raw figures: one small file for every run, with nothing in it that no table or reader needs."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from examples.studies.runs import RAW, Dense, Run, Stored, Timed, Work
from rnnprune.formats.atomic import write_atomic

Answers = Mapping[str, Mapping[str, Any]]
Raw = dict[str, Any]
POINTS = 25  # of a curve
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: counted, not trained


def path_of(work: Work | Timed) -> Path:
    """Where its figures are kept."""
    return RAW / work.task / f"{work.name}.json"


def told_commands(work: Work | Timed) -> list[str]:
    """As a person would type them, from the data on: with those of all that it is made of."""
    if isinstance(work, Timed):
        return told_commands(work.stored)
    made_of = work.needs() if isinstance(work, Run) else [work.made] if isinstance(work, Stored) else []
    before = [command for each in made_of for command in told_commands(each)]
    return [*before, *(f"rnnprune {shlex.join(words)}" for words in work.commands().values())]


def read(work: Work | Timed) -> Raw | None:
    """Its figures; None where it was not made, or by other commands."""
    try:
        found: Raw = json.loads(path_of(work).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found if found["commands"] == told_commands(work) else None


def write(work: Work | Timed, figures: Mapping[str, Any]) -> None:
    """Durably, so that what is there is whole."""
    path = path_of(work)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"commands": told_commands(work), **_rounded(figures)}
    write_atomic(path, (json.dumps(content, allow_nan=False) + "\n").encode())


def diverged(code: int) -> Raw:
    """What stands for a run that ended so."""
    return {"failed": code}


def figures_of(work: Work, answers: Answers) -> Raw:
    """What is kept of the answers of its commands."""
    if isinstance(work, Dense):
        return {key: answers["train"][key] for key in ("metric", "parameters", "steps", "seconds")}
    return _of_run(work, answers) if isinstance(work, Run) else _of_files(work, answers)


def _of_run(run: Run, answers: Answers) -> Raw:
    manifest = json.loads((run.run / "rnnprune.json").read_text(encoding="utf-8"))
    steps = [json.loads(line) for line in (run.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    tensors = answers["report"]["tensors"]
    parameters = [tensor for tensor in tensors if not tensor["name"].endswith(BUFFERS)]
    machine = manifest["machine"]
    return {
        "metric": manifest["metric"]["name"],
        "goal": manifest["metric"]["goal"],
        "figures": manifest["figures"],
        "sparsity": manifest["sparsity"]["achieved"],
        "weights": sum(math.prod(tensor["shape"]) for tensor in parameters),
        "nonzeros": sum(tensor["nnz"] for tensor in parameters),
        "bytes": manifest["files"]["model.safetensors"]["bytes"],
        **(_where_the_threshold_alone_landed(steps, tensors) if "--schedule gradual" in run.flags else {}),
        "curve": curve_of(steps),
        "steps": manifest["steps"],
        "seconds": manifest["seconds"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}",
        "rnnprune": manifest["versions"]["rnnprune"],
    }


Lines = Sequence[Mapping[str, Any]]


def curve_of(steps: Lines) -> Raw:
    """Mean training loss of each of POINTS stretches, by the step at which it ends, and the zeros at that step."""
    width = steps[-1]["step"] / POINTS
    stretches = [list(lines) for _, lines in groupby(steps, lambda line: math.ceil(line["step"] / width))]
    return {
        "step": [lines[-1]["step"] for lines in stretches],
        "loss": [statistics.fmean(line["loss"] for line in lines) for lines in stretches],
        "zeros": [lines[-1]["sparsity"] for lines in stretches],
    }


def _where_the_threshold_alone_landed(steps: Lines, tensors: Lines) -> Raw:
    """Of gradual: the share of zeros that the last plain threshold gives, and how many cuts the guard had to stop."""
    updates = [line["groups"] for line in steps if "groups" in line]
    sizes = {tensor["name"]: math.prod(tensor["shape"]) for tensor in tensors}
    last = updates[-1]
    landed = {name: last[name]["plain_sparsity"] for name in last}
    return {
        "plain_sparsity": sum(share * sizes[name] for name, share in landed.items())
        / sum(sizes[name] for name in landed),
        "plain_range": [min(landed.values()), max(landed.values())],
        "guarded": sum(group["guarded"] for groups in updates for group in groups.values()),
    }


def _of_files(stored: Stored, answers: Answers) -> Raw:
    files = {}
    for form in stored.forms:
        scored = answers[f"evaluate-{form}"]
        files[form] = {"bytes": scored["bytes"], "figures": scored["figures"], "engine": scored["engine"]}
    return {"files": files}


def _rounded(value: Any) -> Any:
    """Six figures are enough for any table."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
