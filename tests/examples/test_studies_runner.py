"""examples/studies: what a runner makes, once and never twice, and what it says where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.commands import Failed, kept
from examples.studies import raw, runner, tasks, timing
from examples.studies.cells import Cell, cells
from examples.studies.runs import Dense, Stored, Timed, Work, run_of
from rnnprune.errors import StorageError
from rnnprune.formats.lock import folder_lock
from tests.examples.made_up_runs import by_rate, made_up, make_up

ROOT = Path(__file__).parents[2]


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

    monkeypatch.setitem(tasks.TASKS, "lm", tasks.TASKS["g2p"])
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
def test_figures_made_by_other_commands_or_of_another_checkpoint_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(Cell("C", "lm", "large-taught", 0), "0.002")
    stored = Stored(run, ("csr",))
    works: list[Work] = [run.dense, run, stored]
    for work in works:
        made_up(work, by_rate)
    raw.write(Timed(stored), {"us": 1.0})
    assert all(map(raw.read, [*works, Timed(stored)]))
    monkeypatch.setitem(tasks.TASKS, "lm", tasks.TASKS["lm"]._replace(dense_steps=7))
    assert not any(map(raw.read, [*works, Timed(stored)]))


@pytest.mark.usefixtures("elsewhere")
def test_what_lies_there_of_another_checkpoint_is_not_taken_for_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(Cell("A", "lm", "dense", 0), "0.002")
    for work in (run.dense, run):
        made_up(work, by_rate)
        work.folder.mkdir(parents=True)
        (work.folder / "answer.json").write_text("old")
    run.dense.file.touch()
    monkeypatch.setitem(tasks.TASKS, "lm", tasks.TASKS["lm"]._replace(train="lm --lr 0.1"))
    monkeypatch.setattr(runner, "kept", lambda *_, **__: {})
    monkeypatch.setattr(raw, "figures_of", lambda *_: {"metric": "M", "goal": "min"})
    runner.make(run)
    assert not list(run.dense.folder.iterdir())
    assert not list(run.folder.iterdir())
    assert raw.read(run) == {"commands": raw.told_commands(run), "metric": "M", "goal": "min"}


def test_a_disturbed_timing_is_asked_for_again() -> None:
    assert not timing.steady(None)
    assert not timing.steady({"spread": 0.3})
    assert timing.steady({"spread": 0.1})


@pytest.mark.usefixtures("elsewhere")
def test_what_is_asked_for_again_is_dropped_and_nothing_else() -> None:
    chosen = cells("B/g2p/hard25-fisher")
    made = list(make_up(cells("B/g2p/gradual-fisher") + chosen, by_rate))
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
