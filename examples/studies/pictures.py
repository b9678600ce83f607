"""Figures that a newcomer reads at a glance, drawn from the raw figures: docs/results/studies/*.svg.

    large_sparse.svg   study A: a small dense model and a large sparse one with as many weights, each task
    frontier.svg       study D: figure against latency, dense, int8 and sparse
    own_size.svg       study F: how far behind the dense control 90 % of zeros leave a model, and what closes the gap
    curves.svg         study B: zeros and training loss over the fine-tuning, method by method

A transparent ground, and one grey for all that is no data, read alike on a light and a dark page. matplotlib draws
them: `pip install 'rnnprune[plot]'`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from examples.studies.pages import FOLDER
from examples.studies.raw import Raw
from examples.studies.rows import Row, control_of, relative, rows
from examples.studies.tasks import TASKS
from examples.studies.variants import SEEDS, B, Form

GREY, DENSE, SPARSE, LIGHT = "#848d97", "#d9822b", "#2f81f7", "#8fb8f5"
LOOK = {
    "axes.edgecolor": GREY, "axes.labelcolor": GREY, "text.color": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "axes.spines.top": False, "axes.spines.right": False, "font.size": 11, "legend.frameon": False,
    "svg.hashsalt": "rnnprune", "savefig.transparent": True,
}  # fmt: skip
METHODS = {  # of study B, by magnitude
    "cubic-magnitude": (SPARSE, "-"), "aimed-magnitude": (SPARSE, ":"), "gradual-magnitude": (DENSE, "-"),
    "hard25-magnitude": (GREY, "-"), "oneshot-magnitude": (GREY, ":"),
}  # fmt: skip
SIZES = {  # of study A: label, colour
    "dense-small": ("small, dense", DENSE), "sparse": ("baseline, sparse", LIGHT),
    "sparse-large": ("large, sparse", SPARSE),
}  # fmt: skip
GAPS = {  # of study F
    "magnitude": ("magnitude, matrices alike", GREY), "tensor": ("fisher, matrices alike", LIGHT),
    "s90": ("fisher, shared out", SPARSE),
}  # fmt: skip


class Bar(NamedTuple):
    """percent: the mean over all seeds, above the dense model that it is held against."""

    label: str
    percent: float
    deviation: float


class Dot(NamedTuple):
    """One file: milliseconds, the mean of its figure, and whether zeros make it fast."""

    label: str
    milliseconds: float
    figure: float
    sparse: bool


def bars(study: str, shown: Mapping[str, tuple[str, str]]) -> dict[str, list[Bar]]:
    """Task -> what is shown of a study, above the dense baseline; only tasks that have all seeds of all of it."""
    found = {}
    for task in TASKS:
        made = rows(study, task)
        there = [_bar(made[name], label, control_of(task)) for name, (label, _) in shown.items()]
        found[task] = [bar for bar in there if bar is not None]
    return {task: there for task, there in found.items() if len(there) == len(shown)}


def frontier(task: str) -> list[Dot]:
    """Every file of the task that was scored and timed."""
    dots = []
    for row in rows("D", task).values():
        for form in row.forms:
            values, us, in_torch = list(row.file(form).values()), row.latency(form), row.latency("dense")
            told_already = form == "dense-native" and us is not None and us > 0.98 * (in_torch or 0.0)
            if values and us is not None and not told_already:
                label = f"{row.variant.told.partition(';')[0]}{_noted(form)}"
                dots.append(Dot(label, us / 1000, statistics.fmean(values), not form.startswith("dense")))
    return dots


def _noted(form: Form) -> str:
    return " on our engine" if form == "dense-native" else ", int8" if "int8" in form else ""


def curves(task: str) -> dict[str, Raw]:
    """Variant of study B, by magnitude -> the curve of seed 0: step, loss and zeros, each a list."""
    made = rows("B", task)
    return {name: made[name].raws[0]["curve"] for name in METHODS if "curve" in made[name].raws.get(0, {})}


def best_of(dots: Sequence[Dot]) -> list[Dot]:
    """Those that no faster one beats, by latency: smaller figures are better for every task here."""
    found: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.milliseconds, dot.figure)):
        if not found or dot.figure < found[-1].figure:
            found.append(dot)
    return found


def _bar(row: Row, label: str, control: Mapping[int, float]) -> Bar | None:
    percents = relative(row.test(), control)
    if len(percents) < len(SEEDS) or not all(map(math.isfinite, percents)):
        return None
    return Bar(label, statistics.fmean(percents), statistics.stdev(percents))


def draw_all() -> int:
    """The exit code: 1 where a figure has nothing to show yet, or there is no matplotlib."""
    if find_spec("matplotlib") is None:
        print("the pictures need matplotlib; install it with `pip install 'rnnprune[plot]'`")
        return 1
    tasks, run = ([task for task in TASKS if shows(task)] for shows in (frontier, curves))
    ready: dict[str, Callable[[Any], None] | None] = {
        "large_sparse": _draw_sizes if bars("A", SIZES) else None,
        "frontier": (lambda figure: _draw_frontiers(figure, tasks)) if tasks else None,
        "own_size": _draw_gaps if bars("F", GAPS) else None,
        "curves": (lambda figure: _draw_curves(figure, run)) if run else None,
    }
    for name, draw in ready.items():
        path = FOLDER / f"{name}.svg"
        if draw is None:
            print(f"{path}: nothing to show yet")
            continue
        with import_module("matplotlib").rc_context(LOOK):
            figure = import_module("matplotlib.figure").Figure(figsize=(8, 4), layout="constrained")
            draw(figure)
            figure.savefig(path, metadata={"Date": None})
        print(path)
    return 0 if all(ready.values()) else 1


def _draw_sizes(figure: Any) -> None:
    _draw_bars(figure, "A", SIZES, "A sixth of the weights: small and dense, or larger and sparse?")


def _draw_gaps(figure: Any) -> None:
    _draw_bars(figure, "F", GAPS, "90 % zeros, against the same model without")


def _draw_bars(figure: Any, study: str, shown: Mapping[str, tuple[str, str]], title: str) -> None:
    found, axes = bars(study, shown), figure.subplots()
    for place, (_, colour) in enumerate(shown.values()):
        at = [index + (place - 1) * 0.28 for index in range(len(found))]
        _columns(axes, at, [each[place] for each in found.values()], colour)
    axes.set_xticks(range(len(found)), [f"{task}\n{TASKS[task].shown}" for task in found])
    axes.axhline(0, color=GREY, linewidth=1)
    axes.margins(y=0.12)
    axes.set_ylabel("worse than the dense baseline, %")
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=len(shown))


def _columns(axes: Any, at: Sequence[float], bars: Sequence[Bar], colour: str) -> None:
    heights, errors = [bar.percent for bar in bars], [bar.deviation for bar in bars]
    axes.bar(at, heights, 0.26, yerr=errors, color=colour, ecolor=GREY, label=bars[0].label)
    for x, bar in zip(at, bars, strict=True):
        up = max(bar.percent, 0) + bar.deviation
        axes.annotate(f"{bar.percent:+.0f} %", (x, up), xytext=(0, 3), textcoords="offset points", ha="center")


def _draw_frontiers(figure: Any, tasks: Sequence[str]) -> None:
    figure.set_size_inches(4.5 * len(tasks) if len(tasks) > 1 else 8, 4)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        _draw_frontier(axes, task)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _draw_frontier(axes: Any, task: str) -> None:
    dots = frontier(task)
    for sparse, colour, label in ((False, DENSE, "dense, int8"), (True, SPARSE, "sparse")):
        side = [dot for dot in dots if dot.sparse == sparse]
        axes.scatter([dot.milliseconds for dot in side], [dot.figure for dot in side], color=colour, s=22, label=label)
        front = best_of(side)
        axes.step([dot.milliseconds for dot in front], [dot.figure for dot in front], where="post", color=colour)
        for dot in side if not sparse else sorted({*front[:1], *front[-2:]}):
            place = (dot.milliseconds, dot.figure)
            down = -11 if dot == front[-1] or (not sparse and "int8" in dot.label) else 5
            axes.annotate(dot.label, place, xytext=(4, down), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.08)
    ticks = import_module("matplotlib.ticker")
    axes.xaxis.set_major_locator(ticks.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda milliseconds, _: f"{milliseconds:g}")
    axes.xaxis.set_minor_formatter(ticks.NullFormatter())
    axes.set_xlabel("ms, recurrent layers, 100 steps")
    axes.set_ylabel(f"{TASKS[task].shown} (lower is better)")
    axes.set_title(task)


def _draw_curves(figure: Any, tasks: Sequence[str]) -> None:
    figure.set_size_inches(4.5 * len(tasks) if len(tasks) > 1 else 8, 5)
    grid = figure.subplots(2, len(tasks), squeeze=False, sharex="col", height_ratios=(1, 2))
    for (above, below), task in zip(grid.T, tasks, strict=True):
        for name, curve in curves(task).items():
            (colour, style), label = METHODS[name], B[name].method
            edges, zeros = [0, *curve["step"]], [100 * share for share in curve["zeros"]]
            for axes, values in ((above, zeros), (below, curve["loss"])):
                axes.stairs(values, edges, color=colour, linestyle=style, linewidth=1.5, label=label, baseline=None)
        above.set_title(task)
        above.set_ylabel("zeros, %")
        below.set_ylabel("training loss")
        below.set_xlabel("step of the fine-tuning")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
