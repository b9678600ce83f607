"""`finetune` and `prune`: the commands that make a model sparse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.cli.groups import SelectionFlags, TaskFlags, TimingFlags, TuningFlags, distillation, spread
from rnnprune.errors import UsageError
from rnnprune.pruning.options import PruningOptions, SaliencyName, ScheduleName, parse_block, told_flags
from rnnprune.tasks.options import DistillLevel
from rnnprune.training.options import Keeping, parse_save_every

_PRUNING = PruningOptions()
TARGET = "Share of zeros among the weights that are pruned."


@app.command("finetune", context_settings=o.SETTINGS)
@spread
def finetune(
    *,
    checkpoint: Annotated[Path, typer.Argument(help="A trained dense checkpoint.")],
    target: Annotated[float | None, o.pruning("--target", TARGET, show_default="0.9")] = None,
    max_loss: Annotated[
        str | None, o.pruning("--max-loss", "Instead of --target: the most zeros within 1% of a dense control, or 0.5.")
    ] = None,
    schedule: Annotated[ScheduleName, o.pruning("--schedule", "gradual is the paper's.")] = _PRUNING.schedule,
    saliency: Annotated[SaliencyName, o.pruning("--saliency", "magnitude is the paper's.")] = _PRUNING.saliency,
    timing: TimingFlags,
    block: o.BlockOf = "1x1",
    selection: SelectionFlags,
    subject: TaskFlags,
    tuning: TuningFlags,
    dense: Annotated[bool, o.training("--dense", "Prune nothing: the dense control as a run of its own.")] = False,
    control: Annotated[bool, o.training("--control", "Also train the dense model on, for the same steps.")] = False,
    control_lr: Annotated[float | None, o.training("--control-lr", "Its own peak rate.", show_default="--lr")] = None,
    distill: Annotated[bool, o.training("--distill", "Also learn the outputs of the dense CHECKPOINT.")] = False,
    distill_level: Annotated[
        DistillLevel, o.training("--distill-level", "sequence: learn the teacher's own answers.")
    ] = "word",
    distill_temperature: o.Temperature = 2.0,
    distill_weight: o.LessonWeight = 0.5,
    precision: o.PrecisionOf = "fp32",
    seed: o.Seed = 0,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    resume: o.ResumeOf = "auto",
    save_every: o.SaveEveryOf = "10m",
    nproc: Annotated[int | None, o.model("--nproc", "Processes that train together here.")] = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Prune a trained dense checkpoint gradually while training it on; writes a run folder."""
    from rnnprune.cli import render
    from rnnprune.cli.progress import Progress
    from rnnprune.training.launch import is_launched, launch
    from rnnprune.workflows import finetune as workflow
    from rnnprune.workflows.budget import parse_budget
    from rnnprune.workflows.search import search

    if max_loss is not None and (target is not None or (nproc or 1) > 1 or is_launched()):
        raise UsageError("--max-loss finds the target by itself, in one process: drop --target and --nproc")
    if max_loss is not None and (selection.target_of or selection.n_of_m):
        raise UsageError(
            "--max-loss raises one target for all, from 50 % on: drop --target-of and --n-of-m (--exclude keeps a "
            "tensor dense)"
        )
    if dense and (target is not None or max_loss is not None):
        raise UsageError("--dense prunes nothing: drop --target and --max-loss")
    target = _PRUNING.target if target is None else target
    pieces = selection.build(parse_block(block))
    pruning = PruningOptions(target, schedule, saliency, timing.build(schedule), pieces)
    if dense and (needless := told_flags(pruning)):
        raise UsageError(f"--dense prunes nothing: drop {', '.join(needless)}")

    request = workflow.FinetuneRequest(
        checkpoint=checkpoint,
        task=subject.choice(distill=distill),
        pruning=pruning,
        recipe=tuning.recipe(seed, precision),
        distill=distillation(subject.teacher, distill_temperature, distill_weight, distill_level, asked=distill),
        dense=dense,
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
@spread
def prune(
    *,
    checkpoint: Annotated[Path, typer.Argument(help="Any checkpoint with recurrent layers.")],
    target: Annotated[float, o.pruning("--target", TARGET)] = _PRUNING.target,
    block: o.BlockOf = "1x1",
    selection: SelectionFlags,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Drop the smallest weights at once, without data or training: for a quick look at size and speed."""
    from rnnprune.cli import render
    from rnnprune.workflows import prune as workflow

    pieces = selection.build(parse_block(block))
    render.show(workflow.prune(checkpoint, target, pieces, out, overwrite=overwrite), json)
