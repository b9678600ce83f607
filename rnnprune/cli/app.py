"""The program: its commands, its exit codes, and where their settings come from.

Flags win over RNNPRUNE_* environment variables, and those over the file given with --config.
"""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from rnnprune.errors import RnnpruneError


class Program(TyperGroup):
    """Turns our own errors into one message and the exit code that the error carries; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RnnpruneError as error:
            print(f"rnnprune: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            print("rnnprune: interrupted; a finished run or file that was there before is as it was", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="rnnprune",
    cls=Program,
    help="Make trained recurrent networks (vanilla RNN, GRU, LSTM; PyTorch) small and fast, and measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> bool:
    if value:
        from rnnprune import __version__

        print(f"rnnprune {__version__}")
        raise typer.Exit
    return value


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Make trained recurrent networks (vanilla RNN, GRU, LSTM; PyTorch) small and fast, and measure it."""


from rnnprune.cli import benching, inspecting, training  # noqa: E402, F401 - the commands register themselves with `app`
