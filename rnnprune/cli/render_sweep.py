"""A sweep for people: the frontier as a table, what to take, and for `--plot` a picture in plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from rnnprune.cli import render
from rnnprune.workflows.frontier import Frontier, Point, Spread
from rnnprune.workflows.latency import BATCH, STEPS
from rnnprune.workflows.sweep import Sweep

WIDTH, HEIGHT = 64, 16
FRONT, BEATEN, TAKEN, DENSE = "*", ".", "@", "D"


def show(result: Sweep, json: bool, plot: bool) -> None:
    """Print one JSON object, or the table (and the picture)."""
    if json:
        render.show(result, json=True)
        return
    frontier = result.frontier
    render.console().print(_table(frontier))
    if plot:
        print(scatter(frontier))
    for name, why in result.left_out.items():
        print(f"left out: {name}: {why}")
    for remark in result.remarks:
        print(remark)
    print(
        f"{frontier.metric}: mean and standard deviation over the seeds; {FRONT} no other point beats it (by the "
        f"validation split); latency: the recurrent layers, a sequence of {STEPS}, batch {BATCH}, "
        f"{result.machine['cpu']}"
    )
    print(_advice(result))


def scatter(frontier: Frontier) -> str:
    """Metric of the validation split, the better the higher, against bytes on a logarithmic axis."""
    points = [point for point in _everyone(frontier) if math.isfinite(point.validation.mean)]
    x = _scaled([math.log(point.bytes) for point in points], WIDTH - 1)
    y = _scaled([point.validation.mean for point in points], HEIGHT - 1)
    rows = [[" "] * WIDTH for _ in range(HEIGHT)]
    for point, column, row in sorted(
        zip(points, x, y, strict=True), key=lambda each: _mark(frontier, each[0]) != BEATEN
    ):
        rows[row if frontier.goal == "min" else HEIGHT - 1 - row][column] = _mark(frontier, point)
    small, large = (render.human_bytes(size(point.bytes for point in points)) for size in (min, max))
    told = [f"{frontier.metric}, better upwards", *(f"|{''.join(row).rstrip()}" for row in rows), f"+{'-' * WIDTH}"]
    legend = f"{TAKEN} take  {FRONT} front  {BEATEN} beaten  {DENSE} dense"
    return "\n".join([*told, f"{small:<{WIDTH - len(large)}} {large}", legend])


def _table(frontier: Frontier) -> Table:
    table = Table()
    figures = ("zeros", "validation", "loss", "test", "nonzeros", "in file", "of dense", "latency", "x dense")
    for number, column in enumerate(("", "point", *figures)):
        table.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
    for point in _everyone(frontier):
        latency = point.latency
        table.add_row(
            _mark(frontier, point).replace(BEATEN, "").replace(DENSE, ""),
            point.name,
            f"{point.sparsity:.2%}",
            _spread(point.validation),
            f"{frontier.loss(point):+.1%}",
            _spread(point.test),
            f"{point.nonzeros:,}",
            render.human_bytes(point.bytes),
            f"{point.bytes / frontier.control.bytes:.1%}",
            "" if latency is None else f"{latency.us / 1000:.3g} ms",
            "" if latency is None else f"{latency.dense_us / latency.us:.2f}",
        )
    return table


def _advice(result: Sweep) -> str:
    frontier = result.frontier
    if frontier.take is None or frontier.run is None:
        return f"{result.out}: no point on the front is within {frontier.budget} of the dense control"
    within = f"{TAKEN} {frontier.take} is within {frontier.budget} of the dense control"
    return f"{within}; next: {render.export_command(frontier.run)}"


def _everyone(frontier: Frontier) -> tuple[Point, ...]:
    return (frontier.control, *frontier.points)


def _mark(frontier: Frontier, point: Point) -> str:
    if point.name == frontier.take:
        return TAKEN
    if point is frontier.control:
        return DENSE
    return FRONT if point.name in frontier.front else BEATEN


def _spread(spread: Spread) -> str:
    deviation = spread.deviation
    return f"{spread.mean:.4g}" if deviation is None else f"{spread.mean:.4g} +- {deviation:.2g}"


def _scaled(values: Sequence[float], largest: int) -> list[int]:
    low, high = min(values), max(values)
    return [round(largest * (value - low) / (high - low or 1.0)) for value in values]
