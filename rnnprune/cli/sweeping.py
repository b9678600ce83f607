"""`sweep`: the command that tries many ways of pruning one checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.errors import UsageError
from rnnprune.pruning.options import (
    SINGLE_WEIGHT,
    BlockNorm,
    PruningOptions,
    SaliencyName,
    ScheduleName,
    Scope,
    Selection,
    Timing,
    parse_block,
)
from rnnprune.training.options import Keeping, parse_save_every
from rnnprune.training.recipe import Decay, Recipe

_DEFAULT = Recipe()
_TIMING = Timing()
GRID = "What is tried"


def _grid(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel=GRID, show_envvar=False)


def _output(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel=o.OUTPUT, show_envvar=False)


@app.command("sweep", context_settings=o.SETTINGS)
def sweep(
    checkpoint: Annotated[Path, typer.Argument(help="A trained dense checkpoint.")],
    targets: Annotated[str, _grid("--targets", "Shares of zeros.")] = "0.8,0.9,0.95",
    methods: Annotated[str, _grid("--methods", "Of gradual, cubic, hard.")] = "gradual,cubic,hard",
    saliency: Annotated[str, _grid("--saliency", "Of fisher, magnitude.")] = "fisher",
    block: Annotated[str, _grid("--block", "Single weights and blocks: 1x1,4x1,16x1.")] = "1x1",
    seeds: Annotated[int, _grid("--seeds", "Runs of every combination; the seeds count up from --seed.")] = 3,
    distill: Annotated[bool, _grid("--distill", "Everything also with the dense CHECKPOINT as a teacher.")] = False,
    start: Annotated[float, o.pruning("--start", "First cut, as a share of all steps.")] = _TIMING.start,
    ramp: Annotated[float, o.pruning("--ramp", "Second slope of gradual, likewise.")] = _TIMING.ramp,
    end: Annotated[float, o.pruning("--end", "Last cut, likewise.")] = _TIMING.end,
    frequency: Annotated[
        int | None, o.pruning("--frequency", "Steps between cuts.", show_default="at most 100")
    ] = None,
    slope_ratio: Annotated[float, o.pruning("--slope-ratio", "Of gradual's two slopes.")] = 1.5,
    revive: Annotated[bool, o.pruning("--revive", "gradual: let weights come back.")] = False,
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
    control_lr: Annotated[
        float | None, o.training("--control-lr", "Peak rate of the dense control.", show_default="--lr")
    ] = None,
    distill_temperature: o.Temperature = 2.0,
    distill_weight: o.LessonWeight = 0.5,
    precision: o.PrecisionOf = "fp32",
    seed: o.Seed = 0,
    jobs: Annotated[
        int | None, o.training("--jobs", "Cells side by side.", show_default="one per core; 1 on cuda")
    ] = None,
    max_loss: Annotated[
        str | None, _output("--max-loss", "Mark what is within 1% (of the control) or 0.5; exit 4 if none is.")
    ] = None,
    rounds: Annotated[int, _output("--rounds", "Timed rounds of the latency; 0: not measured.")] = 20,
    plot: Annotated[bool, _output("--plot", "Draw the frontier in the terminal.")] = False,
    picture: Annotated[Path | None, _output("--picture", "Draw it into this .png, .svg or .pdf.")] = None,
    out: o.Out = None,
    save_every: o.SaveEveryOf = "10m",
    device: o.Device = "cpu",
    threads: Annotated[
        int | None, _output("--threads", "Of every cell and of the timing; else the cores shared out, and all.")
    ] = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Prune a checkpoint in many ways, several seeds each, and draw the frontier: metric, bytes, latency.

    The same command goes on where it was interrupted; more targets, methods or seeds may be added.
    """
    from rnnprune.cli import render_sweep
    from rnnprune.tasks.source import DataOptions
    from rnnprune.tasks.taught import Lesson
    from rnnprune.workflows import sweep as workflow
    from rnnprune.workflows.budget import parse_budget
    from rnnprune.workflows.finetune_plan import FinetuneRequest
    from rnnprune.workflows.plot_frontier import require_plotting, write_picture
    from rnnprune.workflows.subject import TaskChoice, Unlabelled
    from rnnprune.workflows.sweep_grid import Grid
    from rnnprune.workflows.teacher import Distillation

    if plot and json:
        raise UsageError("--plot draws for people, --json prints for programs; choose one")
    if picture is not None:
        require_plotting(picture)
    selection = Selection(SINGLE_WEIGHT, block_norm, scope, tuple(include or ()), tuple(exclude or ()), keep_diagonal)
    timing = Timing(start, ramp, end, frequency, slope_ratio, revive)
    base = FinetuneRequest(
        checkpoint=checkpoint,
        task=TaskChoice(
            task,
            DataOptions(data, batch_size, seq_len, skip_bad),
            Unlabelled(inputs, None if distill else teacher, model),
        ),
        pruning=PruningOptions(timing=timing, selection=selection),
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
        control_lr=control_lr,
        keeping=Keeping("auto", parse_save_every(save_every)),
        device=device,
        threads=threads,
    )
    grid = Grid(
        targets=o.shares("--targets", targets),
        methods=o.names("--methods", methods, ScheduleName),
        saliencies=o.names("--saliency", saliency, SaliencyName),
        blocks=tuple(parse_block(each.strip()) for each in block.split(",")),
        seeds=seeds,
        distill=distill,
    )
    request = workflow.SweepRequest(base, grid, out, jobs, rounds)
    if max_loss is not None:
        request = request.within(parse_budget(max_loss))
    result = workflow.sweep(request, lambda line: print(line, file=sys.stderr, flush=True))
    if picture is not None:
        write_picture(result.frontier, picture)
    render_sweep.show(result, json, plot)
    if max_loss is not None:
        sys.stdout.flush()
        result.require_take()
