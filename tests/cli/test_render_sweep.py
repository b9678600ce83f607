"""The frontier in a terminal, and as a picture, from points whose places are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnprune.cli import render_sweep
from rnnprune.errors import StorageError, UsageError
from rnnprune.tasks.options import Goal
from rnnprune.workflows.budget import Budget
from rnnprune.workflows.frontier import Frontier, Point, Spread
from rnnprune.workflows.latency import Latency
from rnnprune.workflows.plot_frontier import require_plotting, write_picture
from rnnprune.workflows.sweep import Sweep


def point(name: str, metric: float, size: int) -> Point:
    setting, figures = {"target": 0.9}, Spread((metric, metric))
    return Point(
        name, setting, (name,) * 2, figures, figures, 0.9, size, size, 5, Latency(float(size), 1000.0, ("native",), 0.0)
    )


def frontier(goal: Goal) -> Frontier:
    """Dense at the right, the point to take in the middle, one that is beaten below it, a small and poor one."""
    sign = 1.0 if goal == "min" else -1.0
    points = (point("good", sign * 10.15, 100), point("beaten", sign * 11.0, 110), point("poor", sign * 13.0, 10))
    return Frontier("CER", goal, Budget(0.02, relative=True), point("control", sign * 10.0, 1000), points)


@pytest.mark.parametrize("goal", ["min", "max"])
def test_better_is_up_and_smaller_is_left(goal: Goal) -> None:
    lines = render_sweep.scatter(frontier(goal)).splitlines()[1:-3]
    places = {mark: (row, line.index(mark)) for row, line in enumerate(lines) for mark in "D@.*" if mark in line}
    assert places["D"] == (0, 64)
    assert places["*"] == (15, 1)
    assert places["@"] == (1, 33)
    assert 1 < places["."][0] < 15
    assert places["."][1] == 34


def test_the_table_marks_what_to_take(capsys: pytest.CaptureFixture[str]) -> None:
    result = Sweep(Path("sweep"), frontier("min"), {"hard-s99": "rounds to all"}, ("not the same steps",), {"cpu": "X"})
    render_sweep.show(result, json=False, plot=True)
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if "│" in line and "good" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [
        "@",
        "good",
        "90.00%",
        "10.15 +- 0",
        "+1.5%",
        "10.15 +- 0",
        "100",
        "100 B",
        "10.0%",
        "0.1 ms",
        "10.00",
    ]
    for told in ("left out: hard-s99: rounds to all", "not the same steps", "next: rnnprune export good", "| "):
        assert told in out


def test_a_picture_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--picture front.bmp: expected a name that ends in .png, .svg, .pdf"):
        require_plotting(Path("front.bmp"))


def test_the_picture_names_every_point(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    require_plotting(tmp_path / "front.svg")
    with pytest.MonkeyPatch.context() as patch:
        import matplotlib

        patch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
        write_picture(frontier("min"), tmp_path / "front.svg")
    drawn = (tmp_path / "front.svg").read_text()
    assert all(f">{name}<" in drawn for name in ("control", "good", "beaten", "poor"))
    with pytest.raises(StorageError, match="choose another --picture"):
        write_picture(frontier("min"), tmp_path / "nowhere" / "front.svg")
