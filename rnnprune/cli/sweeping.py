"""`sweep`: the command that tries many ways of pruning one checkpoint."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.cli.groups import SelectionFlags, TaskFlags, TimingFlags, TuningFlags, distillation, spread
from rnnprune.errors import UsageError
from rnnprune.pruning.options import SINGLE_WEIGHT, PruningOptions, SaliencyName, ScheduleName, parse_block
from rnnprune.training.options import Keeping, parse_save_every

_grid = partial(o.option, "What is tried")


@app.command("sweep", context_settings=o.SETTINGS)
@spread
def sweep(
    *,
    checkpoint: Annotated[Path, typer.Argument(help="A trained dense checkpoint.")],
    targets: Annotated[str, _grid("--targets", "Shares of zeros.")] = "0.8,0.9,0.95",
    methods: Annotated[str, _grid("--methods", "Of gradual, cubic, hard.")] = "gradual,cubic,hard",
    saliency: Annotated[str, _grid("--saliency", "Of fisher, magnitude.")] = "fisher",
    block: Annotated[str, _grid("--block", "Single weights and blocks: 1x1,4x1,16x1.")] = "1x1",
    seeds: Annotated[int, _grid("--seeds", "Runs of every combination; the seeds count up from --seed.")] = 3,
    distill: Annotated[bool, _grid("--distill", "Everything also with the dense CHECKPOINT as a teacher.")] = False,
    timing: TimingFlags,
    selection: SelectionFlags,
    subject: TaskFlags,
    tuning: TuningFlags,
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
        str | None, o.output("--max-loss", "Mark what is within 1% (of the control) or 0.5; exit 4 if none is.")
    ] = None,
    rounds: Annotated[int, o.output("--rounds", "Timed rounds of the latency; 0: not measured.")] = 20,
    plot: Annotated[bool, o.output("--plot", "Draw the frontier in the terminal.")] = False,
    picture: Annotated[Path | None, o.output("--picture", "Draw it into this .png, .svg or .pdf.")] = None,
    out: o.Out = None,
    save_every: o.SaveEveryOf = "10m",
    device: o.Device = "cpu",
    threads: Annotated[
        int | None, o.output("--threads", "Of every cell and of the timing; else the cores shared out, and all.")
    ] = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Prune a checkpoint in many ways, several seeds each, and draw the frontier: metric, bytes, latency.

    The same command goes on where it was interrupted; more targets, methods or seeds may be added.
    """
    from rnnprune.cli import render_sweep
    from rnnprune.workflows import sweep as workflow
    from rnnprune.workflows.budget import parse_budget
    from rnnprune.workflows.finetune_plan import FinetuneRequest
    from rnnprune.workflows.plot_frontier import require_plotting, write_picture
    from rnnprune.workflows.sweep_grid import Grid

    if plot and json:
        raise UsageError("--plot draws for people, --json prints for programs; choose one")
    if picture is not None:
        require_plotting(picture)
    schedules = o.names("--methods", methods, ScheduleName)
    base = FinetuneRequest(
        checkpoint=checkpoint,
        task=subject.choice(distill=distill),
        pruning=PruningOptions(timing=timing.build(*schedules), selection=selection.build(SINGLE_WEIGHT)),
        recipe=tuning.recipe(seed, precision),
        distill=distillation(subject.teacher, distill_temperature, distill_weight, asked=distill),
        control_lr=control_lr,
        keeping=Keeping("auto", parse_save_every(save_every)),
        device=device,
        threads=threads,
    )
    grid = Grid(
        targets=o.shares("--targets", targets),
        methods=schedules,
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
