"""`bench`: the command that measures."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.cli.inspecting import Source
from rnnprune.errors import UsageError

_work, _engines = partial(o.option, "What is timed"), partial(o.option, "How")


@app.command("bench", context_settings=o.SETTINGS)
def bench(
    source: Source = None,
    shapes: Annotated[
        str | None,
        _work("--shapes", "Random weights: ROWSxCOLS, KIND:INPUTxHIDDEN, paper. 1760x1760,lstm:512x1024"),
    ] = None,
    sparsity: Annotated[str | None, _work("--sparsity", "Of --shapes: 0.9,0.95.")] = None,
    block: Annotated[str | None, _work("--block", "Of --shapes: zeros in blocks, 16x1.")] = None,
    batch: Annotated[str, _work("--batch", "Batch sizes: 1,16.")] = "1",
    threads: Annotated[str | None, _work("--threads", "Thread counts: 1,2.")] = None,
    time_steps: Annotated[int, _work("--time-steps", "Time steps of a sequence; single steps are timed too.")] = 100,
    memory: Annotated[bool, _work("--memory", "Weights from memory, not from the caches.")] = False,
    engines: Annotated[
        str | None, _engines("--engines", "Only these: torch-csr,native,native:sell8,native:16x1:int8.")
    ] = None,
    rounds: Annotated[int, _engines("--rounds", "Timed rounds; every engine runs in each.")] = 20,
    break_even: Annotated[bool, _engines("--break-even", "Find where sparse starts to win.")] = False,
    min_speedup: Annotated[float | None, _engines("--min-speedup", "Exit 4 if sparse is below this anywhere.")] = None,
    device: o.Device = "cpu",
    plot: Annotated[bool, o.output("--plot", "Bars in the terminal.")] = False,
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
