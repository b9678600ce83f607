"""examples/studies: the pages are those of the raw figures; what is shared is made once; rates are chosen by code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from examples.studies import choice, pages, pictures, raw, status, tables, timing
from examples.studies.cells import Cell, cells
from examples.studies.rows import relative, rows, shown
from examples.studies.runs import Run, Stored, run_of
from examples.studies.tasks import TASKS
from examples.studies.variants import OWN, STUDIES
from rnnprune.cli.app import app
from tests.examples.made_up_runs import by_rate, made_up, make_up

ROOT = Path(__file__).parents[2]


def test_every_page_is_that_of_the_raw_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for study in STUDIES:
        page = pages.page_of(study).read_text(encoding="utf-8")
        assert pages.with_tables(page, study) == page, "run python -m examples.studies render"


def test_what_is_edited_is_put_right_and_a_page_without_marks_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = pages.page_of("B").read_text(encoding="utf-8")
    edited = page.replace("rnnprune finetune", "rnnprune prune")
    assert edited != page == pages.with_tables(edited, "B")
    with pytest.raises(ValueError, match=r"B\.md: the marks are missing"):
        pages.with_tables("# B", "B")


@pytest.mark.usefixtures("elsewhere")
def test_a_runner_makes_every_rate_for_seed_0_and_the_best_of_them_for_the_others() -> None:
    made = [work for work in make_up(cells("B/g2p/hard25-fisher"), by_rate) if isinstance(work, Run)]
    told = [(run.dense.seed, run.flags.split("--lr ")[1].split()[0]) for run in made]
    assert told == [(0, "0.001"), (0, "0.002"), (0, "0.004"), (1, "0.002"), (2, "0.002")]
    row = rows("B", "g2p")["hard25-fisher"]
    assert row.rate == "0.002"
    assert row.test() == {0: 20.0, 1: 22.0, 2: 24.0}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("best", "rates"),
    [
        (0.002, ["0.001", "0.002", "0.004"]),
        (0.016, ["0.001", "0.002", "0.004", "0.008", "0.016", "0.032"]),
        (0.0005, ["0.001", "0.002", "0.004", "0.0005", "0.00025"]),
        (1e-9, ["0.001", "0.002", "0.004", "0.0005", "0.00025", "0.000125"]),
    ],
)
def test_rates_are_tried_until_the_best_has_a_worse_one_on_either_side(best: float, rates: list[str]) -> None:
    def rate(run: Run) -> str:
        return run.flags.split("--lr ")[1].split()[0]

    made = list(make_up(cells("B/g2p/hard25-fisher"), lambda run: abs(math.log(float(rate(run)) / best))))
    first = [rate(run) for run in made if isinstance(run, Run) and run.dense.seed == 0]
    assert first == rates
    taken = {rate(run) for run in made if isinstance(run, Run) and run.dense.seed > 0}
    assert taken == {min(rates, key=lambda each: abs(math.log(float(each) / best)))}


@pytest.mark.usefixtures("elsewhere")
def test_a_diverged_rate_is_never_taken_and_a_missing_one_leaves_the_choice_open() -> None:
    cell = Cell("B", "lm", "cubic-fisher", 0)
    for rate, figure in {"0.002": 3.5, "0.004": 3.0, "0.008": 4.0}.items():
        made_up(run_of(cell, rate), lambda _, figure=figure: figure)
    assert choice.chosen(Cell("F", "lm", "tensor", 2)) is None
    raw.write(run_of(cell, "0.016"), raw.diverged(5))
    assert choice.chosen(Cell("F", "lm", "tensor", 2)) == "0.004"
    told = "0.002: 3.5, 0.004: 3, 0.008: 4, 0.016: diverged"
    assert f"| lm | cubic, 5 to 50 %; fisher | {told} | 0.004 |" in tables.of_study("B")


@pytest.mark.usefixtures("elsewhere")
def test_cells_of_two_studies_that_are_the_same_are_made_once() -> None:
    small, large = (run_of(Cell("C", "g2p", name, 1), "0.002") for name in ("small", "large"))
    assert small == run_of(Cell("A", "g2p", "dense-small", 1), "0.002")
    assert large == run_of(Cell("A", "g2p", "sparse-large", 1), "0.002")
    names = [work.name for work in make_up(cells("A/g2p/sparse-large") + cells("C/g2p/large"), by_rate)]
    assert len(set(names)) == len(names) == len(TASKS["g2p"].rates) + 2


@pytest.mark.usefixtures("elsewhere")
def test_a_cell_whose_rate_another_one_decides_asks_for_that_first() -> None:
    kinds = [(type(work), run.dense.seed, run.dense.size)
             for work in make_up(cells("D/speech/block8x1-90-fisher/1"), by_rate)
             if isinstance(run := getattr(work, "made", work), Run)]  # fmt: skip
    assert kinds == [(Run, 0, "base")] * 3 + [(Run, 1, "base"), (Stored, 1, "base")]


@pytest.mark.usefixtures("elsewhere")
def test_status_counts_down_to_nothing() -> None:
    chosen = cells("D/speech/single90-fisher") + cells("B/speech/cubic-fisher")
    before = status.table(chosen)
    assert before.splitlines()[-1].split() != ["0"]
    assert not any(map(status.is_done, chosen))
    list(make_up(chosen, by_rate))
    for run in {run for cell in chosen for run in choice.asked(cell).work if isinstance(run, Run)}:
        made_up(run.dense, by_rate)
    assert status.table(chosen).splitlines()[-1].split() == ["0"]
    assert all(map(status.is_done, chosen))


@pytest.mark.usefixtures("elsewhere")
def test_the_tables_of_figures_that_are_known() -> None:
    known = {"dense": 10.0, "sparse": 11.0, "small": 12.0}

    def figures(run: Run) -> float:
        kind = "small" if run.dense.size == "small" else "dense" if "--dense" in run.flags else "sparse"
        return known[kind] if "--block" not in run.flags else 13.0

    list(make_up(cells("A/g2p") + cells("B/g2p") + cells("D/g2p/dense") + cells("D/g2p/single90-fisher"), figures))
    a, b, d = (tables.of_study(study) for study in "ABD")
    assert "| dense, baseline | 100 | 0.001 | 20.00 ± 0.00 | +0.0 ± 0.0 % |" in a
    assert "| sparse, from large | 100 | 0.001 | 22.00 ± 0.00 | +10.0 ± 0.0 % |" in a
    assert "phonemes wrong, %, sparse from large below dense small: 8.3 ± 0.0 %; asked for: at least 25 %." in a
    assert "sparse from large above the dense baseline, which has 6.0 times as many weights: +10.0 ± 0.0 %" in a
    same = "0.0 ± 0.0 %, aimed anew 0.0 ± 0.0 %, cubic 0.0 ± 0.0 %"
    assert f"magnitude, gradual below the best of hard (one-shot, at the first step): {same}; asked for: at least" in b
    assert f"magnitude, gradual below what is cut as late (hard, at 50 %): {same}." in b
    assert "fisher, gradual below the best of hard (one-shot, at the first step): 0.0 ± 0.0 %, cubic 0.0" in b
    assert "fisher, gradual below what is cut as late" not in b
    assert "| dense | dense | 5.000 ± 0.000 | -75.0 ± 0.0 % | 1,000 | 100.0% |  |  |" in d
    assert "| single weights, 90 %; fisher | csr | 5.000 ± 0.000 | -75.0 ± 0.0 % | 100 | 10.0% |  |  |" in d
    assert "| blocks 4x1, 80 %; fisher | bsr | not run |  |  |  |  |  |" in d
    assert "As fast as dense int8: not run." in d
    (timed,) = timing.timed_by(cells("D/g2p/dense/0"))
    raw.write(timed, {"us": 4000.0, "dense_us": 4000.0, "int8_us": 2000.0})
    (timed,) = timing.timed_by(cells("D/g2p/single90-fisher"))
    raw.write(timed, {"us": 1000.0, "dense_us": 8000.0, "int8_us": 4000.0})  # while the machine was half as fast
    d = tables.of_study("D")
    assert "| dense | dense-int8 | 5.000 ± 0.000 | -75.0 ± 0.0 % | 100 | 10.0% | 3.00 | 1.00 |" in d
    assert (
        "| single weights, 90 %; fisher | csr-fp16 | 5.000 ± 0.000 | -75.0 ± 0.0 % | 100 | 10.0% | 0.75 | 0.25 |" in d
    )
    assert (
        "As fast as dense, dense-int8 (3.00 ms), the best sparse: 5 (single weights, 90 %; fisher, bitmask-int8); "
        "asked for: below 5." in d
    )


def test_how_figures_are_shown() -> None:
    assert shown([]) == "not run"
    assert shown([1.0, float("inf")]) == "diverged"
    assert shown([2.0]) == "2.000 (1 seed)"
    assert shown([20.0, 22.0]) == "21.00 ± 1.41 (2 seeds)"
    assert shown([1.0, 2.0, 3.0], " %", "+") == "+2.0 ± 1.0 %"
    assert relative({0: 3.0, 2: 5.0}, {0: 2.0, 1: 4.0}) == [pytest.approx(50.0)]
    assert relative({0: 3.0}, {0: 2.0}, lambda bits: 2**bits) == [pytest.approx(100.0)]


@pytest.mark.usefixtures("elsewhere")
def test_what_the_pictures_show() -> None:
    def figures(run: Run) -> float:
        return {"small": 15.0, "large": 10.5}.get(run.dense.size, 10.0) + ("--target" in run.flags) * 1.0

    assert pictures.bars("A", pictures.SIZES) == {}
    assert pictures.frontier("g2p") == []
    list(make_up(cells("A/g2p") + cells("F/g2p/s90") + cells("F/g2p/tensor"), figures))
    assert pictures.bars("A", pictures.SIZES) == {
        "g2p": [
            ("small, dense", pytest.approx(50.0), pytest.approx(0.0)),
            ("baseline, sparse", pytest.approx(10.0), pytest.approx(0.0)),
            ("large, sparse", pytest.approx(15.0), pytest.approx(0.0)),
        ]
    }
    assert pictures.bars("F", pictures.GAPS) == {}, "the plainest way is not there yet"
    list(make_up(cells("F/g2p/magnitude"), figures))
    (ways,) = pictures.bars("F", pictures.GAPS).values()
    assert [bar.label for bar in ways] == [label for label, _ in pictures.GAPS.values()]
    assert [bar.percent for bar in ways] == [pytest.approx(10.0)] * 3
    assert pictures.curves("g2p") == {}
    curve = {"step": [3000], "loss": [0.5], "zeros": [0.9]}
    run = run_of(Cell("B", "g2p", "hard25-magnitude", 0), "0.002")
    list(make_up(cells("B/g2p/hard25-magnitude/0"), lambda made: 10.0 + (made != run)))
    raw.write(run, {**_without_commands(run), "curve": curve})
    assert pictures.curves("g2p") == {"hard25-magnitude": curve}
    slow, fast, poor = (pictures.Dot("", ms, figure, True) for ms, figure in ((3.0, 1.0), (1.0, 2.0), (2.0, 2.5)))
    assert pictures.best_of([slow, fast, poor]) == [fast, slow]


def _without_commands(run: Run) -> raw.Raw:
    return {key: value for key, value in (raw.read(run) or {}).items() if key != "commands"}


def test_a_curve_has_the_mean_loss_of_each_stretch_and_the_zeros_at_its_end() -> None:
    lines = [{"step": step, "loss": float(step % 4), "sparsity": step / 100} for step in range(1, 101)]
    curve = raw.curve_of([*lines[:50], {**lines[49], "loss": 8.0}, *lines[50:]])  # an update has a line of its own
    assert curve["step"] == list(range(4, 101, 4))
    assert curve["loss"] == [1.5] * 12 + [2.8] + [1.5] * 12
    assert curve["zeros"] == [step / 100 for step in range(4, 101, 4)]
    assert raw.curve_of(lines[:3])["step"] == [1, 2, 3]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("longer", "gap"), [(9.0, "+22.2 % (1 seed)"), (11.0, "+10.0 ± 0.0 %")])
def test_a_control_that_overfits_flatters_nothing(longer: float, gap: str) -> None:
    def figures(run: Run) -> float:
        return 11.0 if "--target" in run.flags else longer if run.steps == 12000 else 10.0

    list(make_up(cells("A/g2p/dense") + cells("F/g2p/control4") + cells("F/g2p/longer4"), figures))
    assert f"four times the steps | 100 | 0.001 | 22.00 ± 0.00 | {gap} |" in tables.of_study("F")


def test_a_selection_names_cells_that_exist() -> None:
    assert [str(cell) for cell in cells("B/g2p/hard25-fisher")] == [f"B/g2p/hard25-fisher/{seed}" for seed in (0, 1, 2)]
    assert len(set(map(str, cells()))) == len(cells())
    with pytest.raises(ValueError, match="B/gtp: no such cell; expected STUDY"):
        cells("B/gtp")


def test_every_command_has_flags_that_the_program_knows() -> None:
    commands: Any = get_command(app)
    every = [run_of(cell, "0.002") for cell in cells() if cell.seed == 0]
    words = {tuple(run.commands()["finetune"]) for run in every}
    words |= {("train", *dense.commands()["train"][1:]) for run in every for dense in run.needs()}
    assert len(words) > 100
    for verb, *rest in words:
        command, name = (commands.commands["train"], rest.pop(0)) if verb == "train" else (commands, verb)
        command.commands[name].make_context(name, rest)


def test_every_rate_that_is_borrowed_is_tuned_by_its_lender() -> None:
    for cell in cells():
        decides = choice.tuned_by(cell)
        assert 0 in cell.variant.seeds, cell
        if decides is not None:
            assert decides.variant.rate == OWN, cell
            assert decides.task in decides.variant.tasks, cell
