"""`train tag` and `train classify`: dense models that label sequences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnprune.architecture import Kind
from rnnprune.cli import options as o
from rnnprune.cli.training import train_app
from rnnprune.tasks.options import Level
from rnnprune.training.options import Keeping, parse_save_every
from rnnprune.training.recipe import Recipe

if TYPE_CHECKING:
    from rnnprune.tasks.builtin import BuiltinTask
    from rnnprune.workflows.train import Trained

Data = Annotated[Path, typer.Option("--data", help="JSONL or TSV lines, or a .safetensors file: docs/tag.md.")]
OutFile = Annotated[Path, typer.Option("--out", help="The checkpoint to write, a torch file.")]
Cell = Annotated[Kind, typer.Option("--cell", help="Kind of recurrent layer.")]
Hidden = Annotated[int, typer.Option("--hidden", help="Units per layer and direction.")]
Layers = Annotated[int, typer.Option("--layers", help="Recurrent layers.")]
Bidirectional = Annotated[
    bool, typer.Option("--bidirectional/--forward-only", help="Read both ways, or as the steps come.")
]
Embedding = Annotated[int, typer.Option("--embedding", help="Units of the embedding of tokens.")]
Dropout = Annotated[float, typer.Option("--dropout", help="Around the recurrent layers.")]
TextLevel = Annotated[Level, typer.Option("--level", help="Cut texts into characters or words.")]
Vocab = Annotated[int, typer.Option("--vocab", help="Most frequent tokens to keep.")]
ReplaceFile = Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint.")]


@train_app.command("tag", context_settings=o.SETTINGS)
def train_tag(
    data: Data,
    out: OutFile,
    cell: Cell = "lstm",
    hidden: Hidden = 128,
    layers: Layers = 1,
    bidirectional: Bidirectional = True,
    embedding: Embedding = 64,
    dropout: Dropout = 0.0,
    level: TextLevel = "word",
    vocab: Vocab = 10_000,
    batch_size: o.BatchSize = None,
    skip_bad: o.SkipBad = False,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    optimizer: o.Optimizer = "adam",
    lr: o.LearningRate = 2e-3,
    precision: o.PrecisionOf = "fp32",
    seed: o.Seed = 0,
    overwrite: ReplaceFile = False,
    resume: o.ResumeOf = "auto",
    save_every: o.SaveEveryOf = "10m",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """A label for every token or frame: parts of speech, voice activity, vowel marks."""
    from rnnprune.cli import render
    from rnnprune.tasks.source import DataOptions
    from rnnprune.tasks.tag.model import TagModelSpec
    from rnnprune.tasks.tag.task import TagTask
    from rnnprune.workflows import machine
    from rnnprune.workflows import train as workflow

    machine.set_threads(threads)
    workflow.require_free(out, overwrite=overwrite)
    spec = TagModelSpec(level, cell, hidden, layers, bidirectional, embedding, dropout)
    task = TagTask.from_file(data, spec, DataOptions(batch_size=batch_size, skip_bad=skip_bad), vocab=vocab)
    recipe = Recipe(steps, epochs, optimizer, lr, seed=seed, precision=precision)
    result = _train(task, recipe, out, device, Keeping(resume, parse_save_every(save_every)))
    render.show(result, json)


@train_app.command("classify", context_settings=o.SETTINGS)
def train_classify(
    data: Data,
    out: OutFile,
    cell: Cell = "lstm",
    hidden: Hidden = 128,
    layers: Layers = 1,
    bidirectional: Bidirectional = True,
    embedding: Embedding = 64,
    dropout: Dropout = 0.0,
    level: TextLevel = "word",
    vocab: Vocab = 10_000,
    batch_size: o.BatchSize = None,
    skip_bad: o.SkipBad = False,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    optimizer: o.Optimizer = "adam",
    lr: o.LearningRate = 2e-3,
    precision: o.PrecisionOf = "fp32",
    seed: o.Seed = 0,
    overwrite: ReplaceFile = False,
    resume: o.ResumeOf = "auto",
    save_every: o.SaveEveryOf = "10m",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """A label for a whole sequence: the language of a word, a keyword, a kind of time series."""
    from rnnprune.cli import render
    from rnnprune.tasks.source import DataOptions
    from rnnprune.tasks.tag.model import ClassifyModelSpec
    from rnnprune.tasks.tag.task import ClassifyTask
    from rnnprune.workflows import machine
    from rnnprune.workflows import train as workflow

    machine.set_threads(threads)
    workflow.require_free(out, overwrite=overwrite)
    spec = ClassifyModelSpec(level, cell, hidden, layers, bidirectional, embedding, dropout)
    task = ClassifyTask.from_file(data, spec, DataOptions(batch_size=batch_size, skip_bad=skip_bad), vocab=vocab)
    recipe = Recipe(steps, epochs, optimizer, lr, seed=seed, precision=precision)
    result = _train(task, recipe, out, device, Keeping(resume, parse_save_every(save_every)))
    render.show(result, json)


def _train(task: BuiltinTask, recipe: Recipe, out: Path, device: str, keeping: Keeping) -> Trained:
    from rnnprune.cli.progress import Progress
    from rnnprune.workflows import train as workflow

    with Progress() as progress:
        for note in task.notes:
            progress.note(note)
        return workflow.train_task(task, recipe, out, device, progress.training, progress.note, keeping=keeping)
