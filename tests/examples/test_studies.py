"""examples/studies: the pages are those of the raw figures; what is shared is made once; rates are chosen by code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from examples.commands import Failed, kept
from examples.studies import choice, pages, pictures, raw, runner, status, tables, tasks, timing
from examples.studies.cells import OWN, RATES, STUDIES, Cell, cells
from examples.studies.rows import relative, rows, shown
from examples.studies.runs import Dense, Run, Stored, Work, run_of
from rnnprune.cli.app import app
from rnnprune.errors import StorageError
from rnnprune.formats.lock import folder_lock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No run is there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def made_up(work: Work, badness: Callable[[Run], float]) -> None:
    """The raw figures of a work that nobody did."""
    if isinstance(work, Dense):
        raw.write(work, {"steps": 1, "seconds": 1.0})
    elif isinstance(work, Run):
        value = badness(work)
        label = "dense_control" if "--dense" in work.flags else "sparse"
        figures = {label: {"validation": {"M": value}, "test": {"M": 2 * value}}}
        told = {"metric": "M", "goal": "min", "figures": figures, "weights": 600, "nonzeros": 100, "seconds": 3600.0}
        raw.write(work, {**told, "machine": "an abacus"})
    else:
        files = {form: {"bytes": 1000 if form == "dense" else 100, "figures": {"M": 5.0}} for form in work.forms}
        raw.write(work, {"files": files})


def make_up(chosen: list[Cell], badness: Callable[[Run], float]) -> Iterator[Work]:
    """Everything that a runner would make of these cells, one after the other."""
    while missing := list(runner.missing_work(chosen)):
        for work in missing:
            made_up(work, badness)
            yield work


def by_rate(run: Run) -> float:
    return {"0.001": 12.0, "0.002": 10.0, "0.004": 11.0}[run.flags.split("--lr ")[1].split()[0]] + run.dense.seed


@pytest.mark.usefixtures("elsewhere")
def test_a_runner_makes_every_rate_for_seed_0_and_the_best_of_them_for_the_others() -> None:
    made = [work for work in make_up(cells("B/g2p/hard25-fisher"), by_rate) if isinstance(work, Run)]
    told = [(run.dense.seed, run.flags.split("--lr ")[1].split()[0]) for run in made]
    assert told == [(0, "0.001"), (0, "0.002"), (0, "0.004"), (1, "0.002"), (2, "0.002")]
    row = rows("B", "g2p")["hard25-fisher"]
    assert row.rate == "0.002"
    assert row.test() == {0: 20.0, 1: 22.0, 2: 24.0}


@pytest.mark.usefixtures("elsewhere")
def test_a_diverged_rate_is_never_taken_and_a_missing_one_leaves_the_choice_open() -> None:
    first, second, third = (run_of(Cell("B", "lm", "cubic-fisher", 0), rate) for rate in RATES)
    made_up(first, lambda _: 3.0)
    made_up(second, lambda _: 4.0)
    assert choice.chosen(Cell("D", "lm", "single80-fisher", 2)) is None
    raw.write(third, raw.diverged(5))
    assert choice.chosen(Cell("D", "lm", "single80-fisher", 2)) == "0.001"
    assert "| lm | cubic, 5 to 50 %; fisher | 3 | 4 | diverged | 0.001 |" in tables.of_study("B")


@pytest.mark.usefixtures("elsewhere")
def test_cells_of_two_studies_that_are_the_same_are_made_once() -> None:
    small, large = (run_of(Cell("C", "g2p", name, 1), "0.002") for name in ("small", "large"))
    assert small == run_of(Cell("A", "g2p", "dense-small", 1), "0.002")
    assert large == run_of(Cell("A", "g2p", "sparse-large", 1), "0.002")
    names = [work.name for work in make_up(cells("A/g2p/sparse-large") + cells("C/g2p/large"), by_rate)]
    assert len(set(names)) == len(names) == len(RATES) + 2


@pytest.mark.usefixtures("elsewhere")
def test_a_cell_whose_rate_another_one_decides_asks_for_that_first() -> None:
    kinds = [(type(work), run.dense.seed, run.dense.size)
             for work in make_up(cells("D/lm/block16x1-90-fisher/1"), by_rate)
             if isinstance(run := getattr(work, "made", work), Run)]  # fmt: skip
    assert kinds == [(Run, 0, "base")] * 3 + [(Run, 1, "base"), (Stored, 1, "base")]


@pytest.mark.usefixtures("elsewhere")
def test_status_counts_down_to_nothing() -> None:
    chosen = cells("D/speech/single80-fisher") + cells("B/speech/cubic-fisher")
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
    assert "magnitude, gradual below the best of hard (hard, at 5 %): 0.0 ± 0.0 %; asked for: at least 7 %." in b
    assert "| dense | dense | 5.000 ± 0.000 | -75.0 ± 0.0 % | 1,000 | 100.0% |  |  |" in d
    assert "| single weights, 90 %; fisher | csr | 5.000 ± 0.000 | -75.0 ± 0.0 % | 100 | 10.0% |  |  |" in d
    assert "| blocks 4x1, 80 %; fisher | bsr | not run |  |  |  |  |  |" in d
    assert "As fast as dense int8: not run." in d
    (timed,) = timing.timed_by(cells("D/g2p/dense/0"))
    raw.write(timed, {"us": 4000.0, "dense_us": 4000.0, "int8_us": 2000.0})
    (timed,) = timing.timed_by(cells("D/g2p/single90-fisher"))
    raw.write(timed, {"us": 500.0, "dense_us": 4000.0, "int8_us": 2000.0})
    d = tables.of_study("D")
    assert "| dense | dense-int8 | 5.000 ± 0.000 | -75.0 ± 0.0 % | 100 | 10.0% | 2.00 | 1.00 |" in d
    assert (
        "| single weights, 90 %; fisher | csr-fp16 | 5.000 ± 0.000 | -75.0 ± 0.0 % | 100 | 10.0% | 0.50 | 0.25 |" in d
    )
    assert (
        "As fast as dense int8 or faster, the best sparse: 5 (single weights, 90 %; fisher, csr); the best dense: 5 "
        "(dense, dense-int8)." in d
    )


def test_how_figures_are_shown() -> None:
    assert shown([]) == "not run"
    assert shown([1.0, float("inf")]) == "diverged"
    assert shown([2.0]) == "2.000 (1 seed)"
    assert shown([20.0, 22.0]) == "21.00 ± 1.41 (2 seeds)"
    assert shown([1.0, 2.0, 3.0], " %", "+") == "+2.0 ± 1.0 %"
    assert relative({0: 3.0, 2: 5.0}, {0: 2.0, 1: 4.0}) == [pytest.approx(50.0)]
    assert relative({0: 3.0}, {0: 2.0}, lambda bits: 2**bits) == [pytest.approx(100.0)]


def test_a_command_is_run_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []

    def ask(*words: str, **_: Any) -> Any:
        ran.append(words)
        return {"told": len(ran)}

    monkeypatch.setattr("examples.commands.ask", ask)
    made = tmp_path / "made.json"
    assert [kept(made, "report", "a")["told"], kept(made, "report", "a")["told"]] == [1, 1]
    assert json.loads(made.read_text()) == {"command": ["rnnprune", "report", "a"], "answer": {"told": 1}}
    assert kept(made, "report", "b") == {"told": 2}
    made.write_text('{"comm')
    assert kept(made, "report", "b") == {"told": 3}


def test_a_failing_command_leaves_nothing_and_says_where_its_words_are(elsewhere: Path) -> None:
    with pytest.raises(Failed, match="rnnprune no-such-command ended with exit code 2; see log") as caught:
        kept(Path("made.json"), "no-such-command", log=Path("log"))
    assert caught.value.code == 2
    assert "no-such-command" in (elsewhere / "log").read_text()
    assert not (elsewhere / "made.json").exists()


@pytest.mark.usefixtures("elsewhere")
def test_two_runners_share_the_work_and_never_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "kept", lambda *_, **__: {})
    monkeypatch.setattr(raw, "figures_of", lambda *_: {"metric": "M", "goal": "min"})
    first, second = Dense("lm", "base", 0), Dense("lm", "base", 1)
    with folder_lock(first.folder):
        with pytest.raises(runner.Busy):
            runner.make(first)
        assert raw.read(first) is None
        runner.make(second)
    runner.make(first)
    assert raw.read(first) is not None
    assert raw.read(second) is not None


@pytest.mark.usefixtures("elsewhere")
def test_what_fails_in_one_task_is_still_made_in_another(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def make(work: Work) -> None:
        if work.task == "lm":
            raise StorageError("no space left")
        made_up(work, by_rate)

    steps = tasks.TASKS["lm"].steps
    monkeypatch.setitem(tasks.TASKS, "g2p", tasks.TASKS["g2p"]._replace(steps=steps))
    chosen = cells("A/lm/dense/0") + cells("A/g2p/dense/0")
    assert {work.name for work in runner.missing_work(chosen[:1])} == {
        work.name for work in runner.missing_work(chosen[1:])
    }
    monkeypatch.setattr(runner, "make", make)
    monkeypatch.setattr(runner, "fetch", lambda _: None)
    assert runner.make_all(chosen) == 1
    assert not list(runner.missing_work(chosen[1:]))
    assert capsys.readouterr().out.count(": no space left") == len(list(runner.missing_work(chosen[:1])))


@pytest.mark.usefixtures("elsewhere")
def test_a_full_disk_is_not_taken_for_another_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(runner, "kept", full)
    with pytest.raises(StorageError, match="no space left"):
        runner.make(Dense("lm", "base", 0))


def test_runners_side_by_side_are_told_the_cells_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "true")
    started: list[list[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words: started.append(words) or popen(words))
    assert runner.side_by_side("A/g2p", 2) == 0
    assert started == [["true", "-m", "examples.studies", "run", "A/g2p"]] * 2


@pytest.mark.usefixtures("elsewhere")
def test_figures_made_by_other_commands_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Dense("lm", "base", 0)
    made_up(dense, by_rate)
    assert raw.read(dense) is not None
    monkeypatch.setitem(tasks.TASKS, "lm", tasks.TASKS["lm"]._replace(dense_steps=7))
    assert raw.read(dense) is None


@pytest.mark.usefixtures("elsewhere")
def test_what_is_asked_for_again_is_dropped_and_nothing_else() -> None:
    chosen = cells("B/g2p/hard25-fisher")
    made = list(make_up(cells("B/g2p/hard05-fisher") + chosen, by_rate))
    run_of(chosen[0], "0.001").folder.mkdir(parents=True)
    runner.forget(chosen)
    assert {work.name for work in made if raw.read(work) is None} == {work.name for work in made if "0.25" in work.name}
    assert not run_of(chosen[0], "0.001").folder.exists()


@pytest.mark.usefixtures("elsewhere")
def test_a_file_that_is_made_again_is_timed_again() -> None:
    chosen = cells("D/g2p/dense/0")
    list(make_up(chosen, by_rate))
    (timed,) = timing.timed_by(chosen)
    raw.write(timed, {"us": 1.0})
    runner.forget(chosen)
    assert raw.read(timed) is None


@pytest.mark.usefixtures("elsewhere")
def test_what_the_pictures_show() -> None:
    def figures(run: Run) -> float:
        return {"small": 15.0, "large": 10.5}.get(run.dense.size, 10.0) + ("--target" in run.flags) * 1.0

    assert pictures.sizes() == {}
    assert pictures.frontier("g2p") == []
    list(make_up(cells("A/g2p") + cells("F/g2p/s90") + cells("F/g2p/control"), figures))
    assert pictures.sizes() == {
        "g2p": [
            ("small, dense", pytest.approx(50.0), pytest.approx(0.0)),
            ("large, sparse", pytest.approx(15.0), pytest.approx(0.0)),
        ]
    }
    assert pictures.gaps("g2p") == [("cubic, fisher", pytest.approx(10.0), pytest.approx(0.0))]
    slow, fast, poor = (pictures.Dot("", ms, figure, True) for ms, figure in ((3.0, 1.0), (1.0, 2.0), (2.0, 2.5)))
    assert pictures.best_of([slow, fast, poor]) == [fast, slow]


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
        if decides is not None:
            assert decides.variant.rate == OWN, cell
            assert decides.task in decides.variant.tasks, cell


@pytest.mark.slow
def test_a_cell_from_nothing_to_its_raw_figures(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("letters.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    tiny = tasks.TASKS["lm"]._replace(
        train="lm --data letters.txt --lr 0.002",
        both="--batch-size 4 --seq-len 20",
        sizes=dict.fromkeys(tasks.SIZES, "--hidden 16 --embedding 4"),
        dense_steps=5,
        steps=20,
    )
    monkeypatch.setitem(tasks.TASKS, "lm", tiny)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = run_of(Cell("E", "lm", "paper", 0), "0.002")
    stored = Stored(run._replace(flags=run.flags), ("csr", "csr-fp16"))
    runner.make(stored)
    told, files = raw.read(run), raw.read(stored)
    assert told is not None
    assert files is not None
    assert told["sparsity"] == pytest.approx(0.9, abs=2e-3)
    assert 0 < told["plain_sparsity"] < 1
    assert told["plain_range"][0] <= told["plain_sparsity"] <= told["plain_range"][1]
    assert 0 < told["nonzeros"] < told["weights"]
    assert files["files"]["csr"]["bytes"] == stored.file("csr").stat().st_size
    assert files["files"]["csr"]["figures"]["bpc"] == pytest.approx(told["figures"]["sparse"]["test"]["bpc"], rel=1e-3)
    assert not [path for path in elsewhere.rglob("*.json") if str(elsewhere) in path.read_text()], "no machine's paths"
