"""The frontier as a picture, by matplotlib where it is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rnnprune.errors import StorageError, UsageError
from rnnprune.workflows.frontier import Frontier, Point

SUFFIXES = (".png", ".svg", ".pdf")


def require_plotting(path: Path) -> None:
    """Raise UsageError, before any work is spent, where the picture could not be drawn."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--picture {path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise UsageError("--picture needs matplotlib; install it with `pip install 'rnnprune[plot]'`, or pass --plot")


def write_picture(frontier: Frontier, path: Path) -> None:
    """Metric (test split, one standard deviation up and down) against bytes and, where it was measured, latency."""
    everyone = (frontier.control, *frontier.points)
    timed = [point for point in everyone if point.latency is not None]
    figure = import_module("matplotlib.figure").Figure(figsize=(12 if timed else 6, 5), layout="constrained")
    axes = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
    _draw(axes[0], frontier, [(point, point.bytes / 1000) for point in everyone], "kB in the file")
    if timed:
        milliseconds = [(point, point.latency.us / 1000) for point in timed if point.latency is not None]
        _draw(axes[1], frontier, milliseconds, "ms, recurrent layers")
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; choose another --picture") from error


def _draw(axes: Any, frontier: Frontier, placed: list[tuple[Point, float]], label: str) -> None:
    for point, x in placed:
        on_front = point.name in frontier.front
        colour = "black" if point is frontier.control else "tab:red" if point.name == frontier.take else "tab:blue"
        axes.errorbar(
            x,
            point.test.mean,
            yerr=point.test.deviation or 0.0,
            fmt="o" if on_front else "x",
            color=colour,
            alpha=1.0 if on_front else 0.5,
        )
        axes.annotate(point.name, (x, point.test.mean), textcoords="offset points", xytext=(5, 4), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel(f"{frontier.metric}, test split ({'lower' if frontier.goal == 'min' else 'higher'} is better)")
    axes.grid(alpha=0.3)
