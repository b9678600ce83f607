"""`train ctc`: a dense speech recogniser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnprune.architecture import Kind
from rnnprune.cli import options as o
from rnnprune.cli.training import train_app


@train_app.command("ctc", context_settings=o.SETTINGS)
def train_ctc(
    data: Annotated[Path, typer.Option("--data", help="A manifest: TSV or JSONL of audio path and text.")],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint to write, a torch file.")],
    cell: Annotated[Kind, typer.Option("--cell", help="Kind of recurrent layer.")] = "gru",
    hidden: Annotated[int, typer.Option("--hidden", help="Units per layer and direction.")] = 256,
    layers: Annotated[int, typer.Option("--layers", help="Recurrent layers.")] = 3,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional/--forward-only", help="Read the audio both ways, or as it comes.")
    ] = True,
    mels: Annotated[int, typer.Option("--mels", help="Bands of the features.")] = 40,
    channels: Annotated[int, typer.Option("--channels", help="Of the two convolutions.")] = 32,
    stride: Annotated[int, typer.Option("--stride", help="Frames of 10 ms per recurrent step.")] = 2,
    dropout: Annotated[float, typer.Option("--dropout", help="Before the recurrent layers.")] = 0.2,
    augment: Annotated[bool, typer.Option(help="Stretch and mask the features; for long runs.")] = False,
    batch_size: o.BatchSize = None,
    skip_bad: o.SkipBad = False,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    optimizer: o.Optimizer = "adam",
    lr: o.LearningRate = 1e-3,
    seed: o.Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint.")] = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """A speech recogniser over characters, from a manifest of audio files and their texts."""
    from rnnprune.cli import render
    from rnnprune.cli.progress import Progress
    from rnnprune.tasks.ctc.model import CtcModelSpec
    from rnnprune.tasks.ctc.task import CtcTask
    from rnnprune.tasks.source import DataOptions
    from rnnprune.training.recipe import Recipe
    from rnnprune.workflows import machine
    from rnnprune.workflows import train as workflow

    machine.set_threads(threads)
    workflow.require_free(out, overwrite=overwrite)
    spec = CtcModelSpec(cell, hidden, layers, bidirectional, mels, channels, stride, dropout=dropout, augment=augment)
    task = CtcTask.from_manifest(spec, DataOptions(data, batch_size, skip_bad=skip_bad))
    recipe = Recipe(steps, epochs, optimizer, lr, seed=seed)
    with Progress() as progress:
        for note in task.notes:
            progress.note(note)
        result = workflow.train_task(task, recipe, out, device, progress.training)
    render.show(result, json)
