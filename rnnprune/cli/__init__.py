"""The command line: options -> dataclass -> workflow -> render. typer and rich live here only."""

from __future__ import annotations


def main() -> None:
    """Entry point of `rnnprune` and `python -m rnnprune`."""
    from rnnprune.cli.app import app

    app()
