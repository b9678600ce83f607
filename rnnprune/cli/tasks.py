"""`task new` and `task check`: the way in for a user's own model and loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnprune.cli import options as o
from rnnprune.cli.app import app
from rnnprune.errors import UsageError

task_app = typer.Typer(help="Your own model, data and loss as a task.", no_args_is_help=True)
app.add_typer(task_app, name="task")


@task_app.command("new", context_settings=o.SETTINGS)
def new(
    path: Annotated[Path, typer.Argument(help="The Python file to write, such as my_task.py.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Write a commented task that works as it stands, to be changed into your own."""
    from rnnprune.cli import render
    from rnnprune.workflows import task_new as workflow

    render.show(workflow.write_template(path, overwrite=overwrite), json)


@task_app.command("check", context_settings=o.SETTINGS)
def check(
    task: Annotated[str, typer.Argument(help="Your task: my_task.py:make.")],
    checkpoint: Annotated[Path, typer.Argument(help="The trained dense checkpoint that it will fine-tune.")],
    data: o.Data = None,
    threads: o.Threads = None,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Try a task on a checkpoint and two batches, before a long run does; exit code 2 where something is amiss."""
    from rnnprune.cli import render
    from rnnprune.workflows import machine
    from rnnprune.workflows import task_check as workflow

    machine.set_threads(threads)
    result = workflow.check_task(task, checkpoint, data)
    render.show(result, json)
    if result.failed:
        raise UsageError(
            f"{task}: {len(result.failed)} of {len(result.checks)} checks failed, the first: {result.failed[0].name}"
        )
