"""Results for people (tables on stdout) or for programs (one JSON object on stdout); remarks go to stderr."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.table import Table

from rnnprune.errors import printable
from rnnprune.formats.run_folder import dump_plain
from rnnprune.runtime.sparsify import LayerEngine
from rnnprune.workflows.evaluate import Evaluation
from rnnprune.workflows.export import Exported, form_for
from rnnprune.workflows.finetune import FinetuneResult
from rnnprune.workflows.prune import Pruned
from rnnprune.workflows.report import Report, TensorReport
from rnnprune.workflows.search import Found
from rnnprune.workflows.task_check import Checked
from rnnprune.workflows.task_new import TaskFile
from rnnprune.workflows.train import Trained

WIDTH_OFF_TERMINAL = 160
SCHEMA = 1


@runtime_checkable
class Result(Protocol):
    """What every workflow returns."""

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""


def show(result: Result, json: bool) -> None:
    """Print a result, as one JSON object or for a person."""
    if json:
        print(dump_plain({"schema": SCHEMA, **result.to_json()}))
    else:
        _print(result)


def tell_subject(asked: Path | None, found: Path) -> None:
    """Say which run was taken when the command named none."""
    if asked is None:
        print(f"newest run: {found}", file=sys.stderr)


def tell_layers(layers: Sequence[LayerEngine]) -> None:
    """Which engine each layer took, and why."""
    for layer in layers:
        print(layer, file=sys.stderr)


def tell_notes(notes: Sequence[str]) -> None:
    """What a task has to say about its data."""
    for note in notes:
        print(printable(note, longest=500), file=sys.stderr)


def human_bytes(count: int) -> str:
    """`3.2 MB`, in powers of 1000."""
    if count < 1000:
        return f"{count} B"
    size, units = float(count), iter(("kB", "MB", "GB", "TB"))
    unit = ""
    while size >= 1000:
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"


def console() -> Console:
    width = None if sys.stdout.isatty() else WIDTH_OFF_TERMINAL
    return Console(highlight=False, markup=False, width=width)  # a tensor's name is no markup


def _table(*columns: str) -> Table:
    """The first column holds names; all others are figures."""
    table = Table()
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


@singledispatch
def _print(result: Any) -> None:
    raise TypeError(f"no rendering for {type(result).__name__}")


@_print.register
def _(result: Trained) -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
    print(f"{result.path}: {result.parameters:,} parameters, {result.steps} steps in {result.seconds:.0f} s, {figures}")


@_print.register
def _(result: FinetuneResult) -> None:
    _print_finetuned(result, "for the same steps")


def _print_finetuned(result: FinetuneResult, control: str) -> None:
    metric = result.metric
    table = _table(f"{metric.name} ({'lower' if metric.goal == 'min' else 'higher'} is better)", "test split")
    table.add_row("the checkpoint, before", f"{metric.dense:.4g}")
    if metric.dense_control is not None:
        table.add_row(f"dense, trained on {control}", f"{metric.dense_control:.4g}")
    if result.per_tensor:
        table.add_row(f"sparse, {result.achieved:.2%} zeros", f"{metric.sparse:.4g}")
    console().print(table)
    _tell_shares(result.per_tensor)
    more = f"; next: {export_command(result.run)}" if result.per_tensor else ""
    print(f"{result.run}: {result.steps} steps in {result.seconds:.0f} s{more}")


def export_command(run: Path | str) -> str:
    """What to type next."""
    return f"rnnprune export {run} --format {form_for(Path(run))}"


def _tell_shares(per_tensor: Mapping[str, float]) -> None:
    """Where the zeros are, and of which matrix nothing is left."""
    if len(set(per_tensor.values())) > 1:
        ends = (extreme(per_tensor, key=per_tensor.__getitem__) for extreme in (min, max))
        print("zeros by tensor: " + " to ".join(f"{per_tensor[name]:.1%} ({printable(name)})" for name in ends))
    for name in (name for name, sparsity in per_tensor.items() if sparsity == 1.0):
        print(f"{printable(name)}: nothing is left of it; --target-of '{name}=0.9' keeps a tenth", file=sys.stderr)


@_print.register
def _(result: Found) -> None:
    metric = result.result.metric.name
    table = _table("zeros tried", f"{metric}, validation split", "limit", "steps so far", "verdict")
    for each in result.tries:
        unmade = math.isnan(each.validation)
        verdict = f"within {result.budget}" if each.passed else "a matrix would be empty" if unmade else "too far"
        table.add_row(f"{each.sparsity:.2%}", f"{each.validation:.4g}", f"{each.limit:.4g}", str(each.steps), verdict)
    console().print(table)
    steps, same = result.control_steps, result.control_steps == result.result.steps
    _print_finetuned(result.result, "for the same steps" if same else f"for {steps} steps")
    if not same:
        print(f"the limit is that of the control after {steps} steps; what came later is sparser and no worse")


@_print.register
def _(result: Pruned) -> None:
    table = _table("pruned tensor", "zeros")
    for name, sparsity in result.per_tensor.items():
        table.add_row(printable(name), f"{sparsity:.2%}")
    console().print(table)
    print(f"{result.run}: {result.achieved:.2%} zeros, nothing trained; next: {export_command(result.run)}")


@_print.register
def _(result: Exported) -> None:
    share = result.bytes / max(result.dense_bytes, 1)
    print(
        f"{result.path}: {human_bytes(result.bytes)}, {share:.1%} of {human_bytes(result.dense_bytes)} dense fp32; "
        "read back and compared"
    )
    if result.format != "dense" and not result.sparse:
        print("no matrix in it has zeros enough to be stored sparse: prune it first", file=sys.stderr)
    if result.underflowed:
        print(f"{result.underflowed} values too small for {result.values} became zero", file=sys.stderr)
    if result.format == "bsr":
        sizes = ", ".join(sorted(set(result.blocks.values()))) or "none, as --format csr"
        print(f"matrices in blocks: {len(result.blocks)} ({sizes})", file=sys.stderr)
    if result.format == "bitmask" and result.sparse:
        rest = result.sparse - len(result.bitmasks)
        kept = ", whose values stay as they are" if result.values == "int8" else ""
        told = f" ({rest} smaller as CSR{kept})" if rest else ""
        print(f"matrices as bitmasks: {len(result.bitmasks)}{told}", file=sys.stderr)
    if result.values == "int8":
        print(f"largest rounding error: {result.rounding_error:.2%} of the largest weight", file=sys.stderr)


@_print.register
def _(result: Evaluation) -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
    print(f"{result.path}: {figures} on the {result.split} split ({result.engine})")


@_print.register
def _(result: TaskFile) -> None:
    print(f"{result.path}: works as it stands; its first lines tell the commands to try")


@_print.register
def _(result: Checked) -> None:
    for check in result.checks:
        print(f"{'ok' if check.passed else 'FAILED'}  {check.name}: {check.detail}")


@_print.register
def _(result: Report) -> None:
    table = _table("tensor", "shape", "nonzeros", "zeros", "dense", "CSR", "bitmask", "in file", "in memory", "pruned?")
    table.columns[-1].justify = "left"
    for tensor in (*result.tensors, result.total):
        table.add_row(*_report_cells(tensor))
    for stack in result.stacks:
        print(printable(stack))
    console().print(table)
    for alias, name in result.aliases.items():
        print(f"{printable(alias)} is tied to {printable(name)}")
    for note in result.notes:
        print(printable(note, longest=500))
    print(f"{result.file}: {human_bytes(result.file_bytes)} on disk; dense, CSR and bitmask count float32 values")


def _report_cells(tensor: TensorReport) -> list[str]:
    shape = "" if tensor.name == "total" else "x".join(map(str, tensor.shape))
    sizes = (getattr(tensor.bytes, each) for each in ("dense", "csr", "bitmask", "file", "runtime"))
    reason = tensor.reason if not tensor.pruned else f"yes: {tensor.reason}" if tensor.reason else ""
    figures = [f"{tensor.nnz:,}", f"{tensor.sparsity:.2%}", *map(human_bytes, sizes)]
    return [printable(tensor.name), shape, *figures, printable(reason)]
