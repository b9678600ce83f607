"""What a saved state is refused for, what may change and is told, and what stands in nobody's way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from resume_cases import StopsAt, request_of, write_task

from rnnprune.errors import Interrupted, StorageError, UsageError
from rnnprune.formats.lock import folder_lock
from rnnprune.pruning.options import Selection
from rnnprune.training.options import Keeping, SaveEvery
from rnnprune.workflows import finetune_plan
from rnnprune.workflows.finetune import FinetuneRequest, finetune
from rnnprune.workflows.prune import prune
from rnnprune.workflows.resume import differences
from rnnprune.workflows.teacher import Distillation


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_task()
    return tmp_path


CHANGES: dict[str, tuple[Callable[[FinetuneRequest], FinetuneRequest], str]] = {
    "rate": (lambda r: replace(r, recipe=replace(r.recipe, lr=0.02)), "recipe.lr was 0.01, is 0.02"),
    "steps": (lambda r: replace(r, recipe=replace(r.recipe, steps=50)), "recipe.steps was 40, is 50"),
    "target": (lambda r: replace(r, pruning=replace(r.pruning, target=0.7)), "pruning.target was 0.8, is 0.7"),
    "control": (lambda r: replace(r, control=False), "control was true, is false"),
}


def interrupt(run: str = "run") -> FinetuneRequest:
    request = request_of("cubic fisher adam", run)
    with pytest.raises(Interrupted):
        finetune(request, StopsAt([("pruning", 8)]))
    return request


@pytest.mark.usefixtures("folder")
def test_changed_settings_are_refused_with_the_difference() -> None:
    request = interrupt()
    before = {path.name: path.read_bytes() for path in Path("run/.unfinished/state").iterdir()}
    for change, text in CHANGES.values():
        with pytest.raises(UsageError, match=rf"with other settings: {text}\. Give the old settings .*--resume never"):
            finetune(change(request))
    with Path("numbers.txt").open("a") as file:
        file.write("\n")
    with pytest.raises(UsageError, match=r"data was \"[0-9a-f]{19}\.\.\., is \"[0-9a-f]{19}\.\.\."):
        finetune(request)
    assert {path.name: path.read_bytes() for path in Path("run/.unfinished/state").iterdir()} == before


def test_a_flag_that_an_older_version_did_not_know_was_off() -> None:
    old = {"timing": {"start": 0.05}}
    assert differences(old, {"timing": {"start": 0.05, "aim": False, "n_of_m": None}}) == []
    assert differences(old, {"timing": {"start": 0.05, "aim": True}}) == ["timing.aim was null, is true"]
    assert differences({"control": True}, {"control": False}) == ["control was true, is false"]


@pytest.mark.usefixtures("folder")
def test_what_will_be_refused_is_refused_before_the_dear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    request = interrupt()
    monkeypatch.setattr(finetune_plan, "taught", lambda *_: pytest.fail("the teacher is asked at once"))
    with pytest.raises(UsageError, match=r"holds a run that was interrupted, with other settings: distill was null"):
        finetune(replace(request, distill=Distillation()))
    Path("done").mkdir()
    Path("done/rnnprune.json").write_text("{}")
    with pytest.raises(UsageError, match="done already holds a finished run"):
        finetune(replace(request, checkpoint=Path("missing.pt"), out=Path("done")))


@pytest.mark.usefixtures("folder")
def test_resume_never_starts_anew() -> None:
    request = interrupt()
    observer = StopsAt([("control", 1)])
    with pytest.raises(Interrupted):
        finetune(replace(request, keeping=Keeping("never"), recipe=replace(request.recipe, lr=0.02)), observer)
    assert observer.notes == []


@pytest.mark.usefixtures("folder")
def test_a_run_that_was_killed_before_its_first_save_starts_anew_and_says_so() -> None:
    request = interrupt()
    shutil.rmtree("run/.unfinished/state")
    observer = StopsAt([])
    finetune(request, observer)
    assert "run was begun before and nothing was saved of it (--save-every); starting anew" in observer.notes
    assert Path("run/model.safetensors").is_file()


@pytest.mark.usefixtures("folder")
def test_what_does_not_decide_the_result_may_change_and_is_told() -> None:
    request = interrupt()
    with Path("noisy.py").open("a") as file:
        file.write("\n# a comment\n")
    observer = StopsAt([])
    finetune(replace(request, threads=2), observer)
    assert observer.notes[0] == "going on after step 8 (pruning), from run/.unfinished/state"
    assert observer.notes[1].startswith(
        "not to the bit what an uninterrupted run would give: threads was 1, is 2; task's"
    )


@pytest.mark.usefixtures("folder")
def test_a_damaged_state_gives_way_to_the_one_before() -> None:
    request = replace(request_of("cubic fisher adam", "run"), keeping=Keeping("auto", SaveEvery(steps=5)))
    with pytest.raises(Interrupted):
        finetune(request, StopsAt([("pruning", 13)]))
    newest = max(Path("run/.unfinished/state").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    observer = StopsAt([])
    finetune(request, observer)
    assert observer.notes == ["going on after step 10 (pruning), from run/.unfinished/state"]


@pytest.mark.usefixtures("folder")
def test_two_processes_do_not_work_in_one_folder() -> None:
    request = request_of("cubic fisher adam", "run")
    for work in (lambda: finetune(request), lambda: prune(Path("dense.pt"), 0.8, Selection(), Path("run"))):
        with folder_lock(Path("run")), pytest.raises(StorageError, match="run: another process is at work there"):
            work()


@pytest.mark.usefixtures("folder")
def test_an_interrupted_run_is_not_swept_away_by_prune_or_over_a_finished_one() -> None:
    request = interrupt()
    with pytest.raises(UsageError, match=r"run holds a run that `finetune` can go on with; choose another --out"):
        prune(Path("dense.pt"), 0.8, Selection(), Path("run"))
    finetune(request)
    finished = Path("run/rnnprune.json").read_bytes()
    with pytest.raises(UsageError, match="run already holds a finished run"):
        finetune(request)
    with pytest.raises(Interrupted):
        finetune(replace(request, overwrite=True), StopsAt([("pruning", 8)]))
    assert Path("run/rnnprune.json").read_bytes() == finished
    observer = StopsAt([])
    finetune(replace(request, overwrite=True), observer)
    assert observer.notes == ["going on after step 8 (pruning), from run/.unfinished/state"]
