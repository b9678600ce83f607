"""`export`, `report`, `evaluate`: the commands that look at models and ship them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.cli.groups import TaskFlags, spread
from rnnprune.formats.options import ExportFormat, Values
from rnnprune.runtime.options import ScoringEngine
from rnnprune.tasks.options import Split

Source = Annotated[Path | None, typer.Argument(help="A run folder or a file; the newest run here if not given.")]


@app.command("export", context_settings=o.SETTINGS)
def export(
    source: Source = None,
    format: Annotated[
        ExportFormat,
        typer.Option("--format", help="csr; bitmask: smaller up to 94 % of zeros; bsr: for one pruned in blocks."),
    ] = "csr",
    values: Annotated[
        Values, typer.Option("--values", help="Number format of the matrices; int8: of bitmask and bsr.")
    ] = "keep",
    block: Annotated[
        str | None, typer.Option("--block", help="Of bsr: 16x1, 8x4.", show_default="as it was pruned")
    ] = None,
    out: o.Out = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace any file of that name.")] = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Write a sparse (or plain dense) safetensors file, and read it back to compare before calling it done."""
    from rnnprune.cli import render
    from rnnprune.pruning.options import parse_block
    from rnnprune.workflows import export as workflow

    blocks = None if block is None else parse_block(block)
    result = workflow.export(source, format, values, out, block=blocks, overwrite=overwrite)
    render.tell_subject(source, result.source)
    render.show(result, json)


@app.command("report", context_settings=o.SETTINGS)
def report(source: Source = None, json: o.Json = False, config: o.Config = None) -> None:
    """Every tensor of a file: pruned or why not, nonzeros, and its bytes in every form."""
    from rnnprune.cli import render
    from rnnprune.workflows import report as workflow

    result = workflow.report(source)
    render.tell_subject(source, result.path)
    render.show(result, json)


@app.command("evaluate", context_settings=o.SETTINGS)
@spread
def evaluate(
    *,
    source: Source = None,
    subject: TaskFlags,
    split: Annotated[Split, typer.Option("--split", help="Which part of the data.")] = "test",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    engine: Annotated[
        ScoringEngine | None,
        typer.Option("--engine", help="What runs it.", show_default="auto for a sparse file, else torch-dense-fp32"),
    ] = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """The task's metric of a run, a checkpoint or a sparse file."""
    from rnnprune.cli import render
    from rnnprune.workflows import evaluate as workflow
    from rnnprune.workflows import machine

    machine.set_threads(threads)
    result = workflow.evaluate(source, subject.choice(), split, device, engine)
    render.tell_subject(source, result.path)
    render.tell_notes(result.notes)
    render.tell_layers(result.layers)
    render.show(result, json)
