"""The program: its commands, its exit codes, and where their settings come from.

Flags win over RNNPRUNE_* environment variables, and those over the file given with --config.
"""

from __future__ import annotations

import difflib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from rnnprune.errors import Interrupted, RnnpruneError, StorageError
from rnnprune.training.stopping import stopping_at_once


def _warn_of_unknown_settings(program: Any) -> None:
    """A misspelt RNNPRUNE_TARGT would otherwise be taken for nothing at all."""
    groups = [getattr(command, "commands", {}) for command in program.commands.values()]
    commands = [*program.commands.values(), *(command for group in groups for command in group.values())]
    known = {f"RNNPRUNE_{parameter.name}".upper() for command in commands for parameter in command.params}
    for name in sorted(os.environ.keys() - known - {"RNNPRUNE_NO_NATIVE"}):
        if name.startswith("RNNPRUNE_"):
            close = difflib.get_close_matches(name, sorted(known), n=1)
            print(f"{name} is no setting and is ignored{f'; {close[0]}?' if close else ''}", file=sys.stderr)


def _flush_stdout() -> None:
    """An answer that nobody could read is no success: a full disk shows only here."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = None  # or the interpreter would try again, and end with 120
        raise StorageError(f"standard output cannot be written: {error.strerror}; free some space") from error


class Program(TyperGroup):
    """Turns our own errors into one message and the exit code that the error carries; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        _warn_of_unknown_settings(self)
        try:
            with stopping_at_once():
                result = super().invoke(ctx)
                _flush_stdout()
                return result
        except RnnpruneError as error:
            print(f"rnnprune: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's words, which typer hands on
            raise
        except KeyboardInterrupt as error:
            told = str(error) or "a finished run or file that was there before is as it was"
            print(f"rnnprune: interrupted; {told}", file=sys.stderr)
            raise typer.Exit(error.exit_code if isinstance(error, Interrupted) else 130) from None


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


# The commands register themselves with `app`.
from rnnprune.cli import benching, inspecting, sweeping, tasks, training, tuning
