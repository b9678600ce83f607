"""`train seq2seq`: an encoder-decoder model from a file of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnprune.architecture import Kind
from rnnprune.cli import options as o
from rnnprune.cli.training import train_app
from rnnprune.tasks.options import Attention, PairMetric, TokenLevel
from rnnprune.training.recipe import Recipe


@train_app.command("seq2seq", context_settings=o.SETTINGS)
def train_seq2seq(
    data: Annotated[Path, typer.Option("--data", help="UTF-8 lines: a source, a tab, a target.")],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint to write, a torch file.")],
    level: Annotated[TokenLevel, typer.Option("--level", help="Characters, words, or pieces of words (BPE).")] = "char",
    target_level: Annotated[
        TokenLevel | None, typer.Option("--target-level", help="Of the targets.", show_default="--level")
    ] = None,
    metric: Annotated[
        PairMetric | None, typer.Option("--metric", help="What decides.", show_default="CER for char, else BLEU")
    ] = None,
    vocab: Annotated[int, typer.Option("--vocab", help="Words or pieces to keep on each side.")] = 4000,
    cell: Annotated[Kind, typer.Option("--cell", help="Kind of recurrent layer.")] = "gru",
    hidden: Annotated[int, typer.Option("--hidden", help="Units per layer, of both directions together.")] = 256,
    layers: Annotated[int, typer.Option("--layers", help="Recurrent layers of encoder and decoder each.")] = 1,
    embedding: Annotated[int, typer.Option("--embedding", help="Units of the embeddings.")] = 128,
    attention: Annotated[Attention, typer.Option("--attention", help="Luong's dot, or Bahdanau's additive.")] = "dot",
    dropout: Annotated[float, typer.Option("--dropout", help="Around the recurrent layers.")] = 0.0,
    beam: Annotated[int, typer.Option("--beam", help="Hypotheses kept when it is scored; 1 is greedy.")] = 1,
    batch_size: o.BatchSize = None,
    skip_bad: o.SkipBad = False,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    optimizer: o.Optimizer = "adam",
    lr: o.LearningRate = 2e-3,
    seed: o.Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint.")] = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """An encoder-decoder with attention, from pairs of texts: translation, transliteration, pronunciation."""
    from rnnprune.cli import render
    from rnnprune.cli.progress import Progress
    from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
    from rnnprune.tasks.seq2seq.task import Seq2SeqTask
    from rnnprune.tasks.source import DataOptions
    from rnnprune.workflows import machine
    from rnnprune.workflows import train as workflow

    machine.set_threads(threads)
    workflow.require_free(out, overwrite=overwrite)
    target_level = target_level or level
    metric = metric or ("CER" if target_level == "char" else "BLEU")
    spec = Seq2SeqModelSpec(
        level, target_level, metric, cell, hidden, layers, embedding, attention, dropout=dropout, beam=beam
    )
    task = Seq2SeqTask.from_pairs(data, spec, DataOptions(batch_size=batch_size, skip_bad=skip_bad), vocab=vocab)
    recipe = Recipe(steps, epochs, optimizer, lr, seed=seed)
    with Progress() as progress:
        for note in task.notes:
            progress.note(note)
        result = workflow.train_task(task, recipe, out, device, progress.training)
    render.show(result, json)
