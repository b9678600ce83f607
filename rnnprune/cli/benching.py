"""`bench`: the command that measures."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.cli.inspecting import Source
from rnnprune.errors import UsageError

WORK, ENGINES = "What is timed", "How"


def _option(panel: str, name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel=panel, show_envvar=False)


@app.command("bench", context_settings=o.SETTINGS)
def bench(
    source: Source = None,
    shapes: Annotated[
        str | None,
        _option(WORK, "--shapes", "Random weights: ROWSxCOLS, KIND:INPUTxHIDDEN, paper. 1760x1760,lstm:512x1024"),
    ] = None,
    sparsity: Annotated[str | None, _option(WORK, "--sparsity", "Of --shapes: 0.9,0.95.")] = None,
    block: Annotated[str | None, _option(WORK, "--block", "Of --shapes: zeros in blocks, 16x1.")] = None,
    batch: Annotated[str, _option(WORK, "--batch", "Batch sizes: 1,16.")] = "1",
    threads: Annotated[str | None, _option(WORK, "--threads", "Thread counts: 1,2.")] = None,
    time_steps: Annotated[
        int, _option(WORK, "--time-steps", "Time steps of a sequence; single steps are timed too.")
    ] = 100,
    memory: Annotated[bool, _option(WORK, "--memory", "Weights from memory, not from the caches.")] = False,
    engines: Annotated[
        str | None, _option(ENGINES, "--engines", "Only these: torch-csr,native,native:sell8,native:16x1:int8.")
    ] = None,
    rounds: Annotated[int, _option(ENGINES, "--rounds", "Timed rounds; every engine runs in each.")] = 20,
    break_even: Annotated[bool, _option(ENGINES, "--break-even", "Find where sparse starts to win.")] = False,
    min_speedup: Annotated[
        float | None, _option(ENGINES, "--min-speedup", "Exit 4 if sparse is below this anywhere.")
    ] = None,
    device: o.Device = "cpu",
    plot: Annotated[bool, _option(o.OUTPUT, "--plot", "Bars in the terminal.")] = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Time dense against sparse, the rivals interleaved: a model's layers and matrices, or given shapes."""
    from rnnprune.cli import render_bench
    from rnnprune.workflows import bench as workflow

    if plot and json:
        raise UsageError("--plot draws for people, --json prints for programs; choose one")
    request = workflow.BenchRequest(
        path=source,
        shapes=shapes,
        sparsity=() if sparsity is None else o.shares("--sparsity", sparsity),
        block=block,
        batches=o.integers("--batch", batch),
        threads=() if threads is None else o.integers("--threads", threads),
        steps=time_steps,
        rounds=rounds,
        engines=tuple(name.strip() for name in engines.split(",")) if engines else (),
        memory=memory,
        break_even=break_even,
        device=device,
    )
    result = workflow.bench(request, lambda line: print(line, file=sys.stderr, flush=True))
    render_bench.show(result, json, plot)
    if min_speedup is not None:
        sys.stdout.flush()
        result.require_speedup(min_speedup)
