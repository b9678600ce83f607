"""`train`, `finetune`, `prune`: the commands that make models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnprune.architecture import Kind
from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.errors import UsageError
from rnnprune.pruning.options import (
    BlockNorm,
    PruningOptions,
    SaliencyName,
    ScheduleName,
    Scope,
    Selection,
    Timing,
    parse_block,
)
from rnnprune.tasks.options import Level
from rnnprune.training.options import Keeping, parse_save_every
from rnnprune.training.recipe import Decay, Recipe

train_app = typer.Typer(help="Train a dense model of a built-in task.", no_args_is_help=True)
app.add_typer(train_app, name="train")

_DEFAULT = Recipe()
_PRUNING = PruningOptions()


@train_app.command("lm", context_settings=o.SETTINGS)
def train_lm(
    data: Annotated[Path, typer.Option("--data", help="One UTF-8 text file.")],
    out: Annotated[Path, typer.Option("--out", help="The checkpoint to write, a torch file.")],
    cell: Annotated[Kind, typer.Option("--cell", help="Kind of recurrent layer.")] = "lstm",
    hidden: Annotated[int, typer.Option("--hidden", help="Units per layer.")] = 256,
    layers: Annotated[int, typer.Option("--layers", help="Recurrent layers.")] = 1,
    embedding: Annotated[int, typer.Option("--embedding", help="Units of the embedding.")] = 64,
    dropout: Annotated[float, typer.Option("--dropout", help="Around the recurrent layers.")] = 0.0,
    level: Annotated[Level, typer.Option("--level", help="Predict characters or words.")] = "char",
    tied: Annotated[bool, typer.Option("--tied", help="The embedding is the output's matrix.")] = False,
    carry: Annotated[bool, typer.Option("--carry", help="Windows go on from the state of those before.")] = False,
    vocab: Annotated[int, typer.Option("--vocab", help="Most frequent words to keep.")] = 10_000,
    batch_size: o.BatchSize = None,
    seq_len: o.SeqLen = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    optimizer: o.Optimizer = "adam",
    lr: o.LearningRate = 2e-3,
    precision: o.PrecisionOf = "fp32",
    seed: o.Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint.")] = False,
    resume: o.ResumeOf = "auto",
    save_every: o.SaveEveryOf = "10m",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """A language model over characters or words, from one text file."""
    from rnnprune.cli import render
    from rnnprune.cli.progress import Progress
    from rnnprune.tasks.lm import LmModelSpec, LmTask
    from rnnprune.workflows import machine
    from rnnprune.workflows import train as workflow

    machine.set_threads(threads)
    workflow.require_free(out, overwrite=overwrite)
    spec = LmModelSpec(level, cell, hidden, layers, embedding, dropout, tied, carry)
    sizes = {"batch_size": batch_size, "length": seq_len}
    task = LmTask.from_text(data, spec, vocab=vocab, **{name: size for name, size in sizes.items() if size is not None})
    recipe = Recipe(steps, epochs, optimizer, lr, seed=seed, precision=precision)
    keeping = Keeping(resume, parse_save_every(save_every))
    with Progress() as progress:
        result = workflow.train_task(task, recipe, out, device, progress.training, progress.note, keeping=keeping)
    render.show(result, json)


@app.command("finetune", context_settings=o.SETTINGS)
def finetune(
    checkpoint: Annotated[Path, typer.Argument(help="A trained dense checkpoint.")],
    target: o.TargetOrNone = None,
    max_loss: Annotated[
        str | None, o.pruning("--max-loss", "Instead of --target: the most zeros within 1% of a dense control, or 0.5.")
    ] = None,
    schedule: Annotated[ScheduleName, o.pruning("--schedule", "gradual is the paper's.")] = _PRUNING.schedule,
    saliency: Annotated[SaliencyName, o.pruning("--saliency", "magnitude is the paper's.")] = _PRUNING.saliency,
    start: Annotated[float, o.pruning("--start", "First cut, as a share of all steps.")] = _PRUNING.timing.start,
    ramp: Annotated[float, o.pruning("--ramp", "Second slope of gradual, likewise.")] = _PRUNING.timing.ramp,
    end: Annotated[float, o.pruning("--end", "Last cut, likewise.")] = _PRUNING.timing.end,
    frequency: Annotated[
        int | None, o.pruning("--frequency", "Steps between cuts.", show_default="at most 100")
    ] = None,
    slope_ratio: Annotated[float, o.pruning("--slope-ratio", "Of gradual's two slopes.")] = 1.5,
    revive: Annotated[bool, o.pruning("--revive", "gradual: let weights come back.")] = False,
    block: o.Block = "1x1",
    block_norm: Annotated[BlockNorm, o.pruning("--block-norm", "Score of a block.")] = "max",
    scope: Annotated[Scope, o.pruning("--scope", "What reaches the target together.")] = "tensor",
    keep_diagonal: o.KeepDiagonal = False,
    include: o.Include = None,
    exclude: o.Exclude = None,
    task: o.TaskSpec = None,
    data: o.Data = None,
    inputs: o.Inputs = None,
    teacher: o.Teacher = None,
    model: o.ModelFunction = None,
    batch_size: o.BatchSize = None,
    seq_len: o.SeqLen = None,
    skip_bad: o.SkipBad = False,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    optimizer: o.Optimizer = "adam",
    lr: o.LearningRate = _DEFAULT.lr,
    decay: Annotated[Decay, o.training("--decay", "Of the learning rate, after a 2 % warm-up.")] = "cosine",
    weight_decay: Annotated[float, o.training("--weight-decay", "Of the optimizer.")] = 0.0,
    clip_norm: Annotated[float, o.training("--clip-norm", "Largest gradient norm; 0: any.")] = _DEFAULT.clip_norm,
    control: Annotated[bool, o.training("--control", "Also train the dense model on, for the same steps.")] = False,
    control_lr: Annotated[float | None, o.training("--control-lr", "Its own peak rate.", show_default="--lr")] = None,
    distill: Annotated[bool, o.training("--distill", "Also learn the outputs of the dense CHECKPOINT.")] = False,
    distill_temperature: o.Temperature = 2.0,
    distill_weight: o.LessonWeight = 0.5,
    precision: o.PrecisionOf = "fp32",
    seed: o.Seed = 0,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    resume: o.ResumeOf = "auto",
    save_every: o.SaveEveryOf = "10m",
    nproc: o.Processes = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Prune a trained dense checkpoint gradually while training it on; writes a run folder."""
    from rnnprune.cli import render
    from rnnprune.cli.progress import Progress
    from rnnprune.tasks.source import DataOptions
    from rnnprune.tasks.taught import Lesson
    from rnnprune.training.launch import is_launched, launch
    from rnnprune.workflows import finetune as workflow
    from rnnprune.workflows.budget import parse_budget
    from rnnprune.workflows.search import search
    from rnnprune.workflows.subject import TaskChoice, Unlabelled
    from rnnprune.workflows.teacher import Distillation

    if max_loss is not None and (target is not None or (nproc or 1) > 1 or is_launched()):
        raise UsageError("--max-loss finds the target by itself, in one process: drop --target and --nproc")

    timing = Timing(start, ramp, end, frequency, slope_ratio, revive)
    selection = Selection(
        parse_block(block), block_norm, scope, tuple(include or ()), tuple(exclude or ()), keep_diagonal
    )
    request = workflow.FinetuneRequest(
        checkpoint=checkpoint,
        task=TaskChoice(
            task,
            DataOptions(data, batch_size, seq_len, skip_bad),
            Unlabelled(inputs, None if distill else teacher, model),
        ),
        pruning=PruningOptions(_PRUNING.target if target is None else target, schedule, saliency, timing, selection),
        recipe=Recipe(
            steps,
            epochs,
            optimizer=optimizer,
            lr=lr,
            decay=decay,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            seed=seed,
            precision=precision,
        ),
        distill=Distillation(teacher, Lesson(distill_temperature, distill_weight)) if distill else None,
        control=control,
        control_lr=control_lr,
        out=out,
        overwrite=overwrite,
        keeping=Keeping(resume, parse_save_every(save_every)),
        device=device,
        threads=threads,
    )
    if max_loss is not None:
        with Progress() as progress:
            found = search(request, parse_budget(max_loss), progress)
        render.show(found, json)
        return
    if nproc is not None and nproc > 1 and not is_launched():
        raise typer.Exit(launch(nproc))
    with Progress() as progress:
        result = workflow.finetune(request, progress)
    if result is not None:  # another process tells it
        render.show(result, json)


@app.command("prune", context_settings=o.SETTINGS)
def prune(
    checkpoint: Annotated[Path, typer.Argument(help="Any checkpoint with recurrent layers.")],
    target: o.Target = _PRUNING.target,
    block: o.Block = "1x1",
    block_norm: Annotated[BlockNorm, o.pruning("--block-norm", "Score of a block.")] = "max",
    scope: Annotated[Scope, o.pruning("--scope", "What reaches the target together.")] = "tensor",
    keep_diagonal: o.KeepDiagonal = False,
    include: o.Include = None,
    exclude: o.Exclude = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Drop the smallest weights at once, without data or training: for a quick look at size and speed."""
    from rnnprune.cli import render
    from rnnprune.workflows import prune as workflow

    selection = Selection(
        parse_block(block), block_norm, scope, tuple(include or ()), tuple(exclude or ()), keep_diagonal
    )
    render.show(workflow.prune(checkpoint, target, selection, out, overwrite=overwrite), json)
