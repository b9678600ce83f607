"""Every `train` command: the flags that all share, the promise to go on, and bad items that stay left out."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from rnnprune.cli.app import app
from rnnprune.cli.progress import Progress
from rnnprune.tasks.builtin import BUILTIN
from rnnprune.training.loop import StepRecord
from tests.cli.conftest import write_letters
from tests.cli.test_tag_command import write_series, write_tags
from tests.tasks.ctc.conftest import write_tones

Program = Callable[..., Any]
SHARED = {
    *("data", "out", "cell", "hidden", "layers", "dropout", "batch_size", "steps", "epochs", "optimizer", "lr"),
    *("precision", "seed", "overwrite", "resume", "save_every", "device", "threads", "json", "config"),
}
DATA: dict[str, tuple[str, ...]] = {
    "lm": ("--data", "letters.txt", "--seq-len", "20", "--batch-size", "8", "--carry"),
    "seq2seq": ("--data", "pairs.tsv", "--batch-size", "16"),
    "ctc": ("--data", "tones.tsv", "--augment", "--layers", "2"),
    "tag": ("--data", "data.tsv", "--level", "char", "--skip-bad"),
    "classify": ("--data", "data.jsonl"),
}
SMALL = ("--hidden", "4", "--dropout", "0.2", "--steps", "8")


@pytest.fixture
def data(folder: Path) -> None:
    write_letters(folder / "letters.txt")
    write_tones(folder)
    write_tags(folder)
    write_series(folder)
    (folder / "pairs.tsv").write_text("".join(f"a{i}\tb{i}\n" for i in range(100)))


def terminate_at(step: int) -> Callable[[Progress, StepRecord], None]:
    """In place of Progress.training: SIGTERM arrives in that step."""
    return lambda _, record: signal.raise_signal(signal.SIGTERM) if record.step == step else None


def weights(path: str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_every_built_in_task_has_its_command_and_the_shared_flags() -> None:
    program: Any = typer.main.get_command(app)
    commands = program.commands["train"].commands
    assert set(commands) == set(BUILTIN) == set(DATA)
    for name, command in commands.items():
        defaults = {parameter.name: parameter.default for parameter in command.params}
        assert SHARED - set(defaults) == set(), name
        assert defaults["lr"] == (1e-3 if name == "ctc" else 2e-3), name


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("task", DATA)
def test_an_interrupted_training_goes_on(rnnprune: Program, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    train = ("train", task, *DATA[task], *SMALL, "--save-every", "2", "--out")
    assert rnnprune(*train, "whole.pt").code == 0

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "training", terminate_at(5))
        told = rnnprune(*train, "parts.pt")
        assert (told.code, "after step 5" in told.err) == (143, True)
    told = rnnprune(*train, "parts.pt", "--lr", "0.5")
    assert (told.code, "recipe.lr was" in told.err) == (2, True)
    told = rnnprune(*train, "parts.pt")
    assert (told.code, "going on after step 5 (training), from parts.pt.state" in told.err) == (0, True)
    whole, parts = weights("whole.pt"), weights("parts.pt")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not Path("parts.pt.state").exists()


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("task", DATA)
def test_resume_never_and_precision_reach_the_training(
    rnnprune: Program, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    train = ("train", task, *DATA[task], *SMALL, "--out", "ckpt.pt")
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "training", terminate_at(1))
        assert rnnprune(*train).code == 143
    told = rnnprune(*train, "--precision", "bf16", "--resume", "never")
    assert (told.code, "going on" in told.err) == (0, False)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights("ckpt.pt").values()), "layers compute in it only"
    told = rnnprune(*train, "--precision", "fp16", "--overwrite")
    assert (told.code, "fp16" in told.err) == (2, True)


BAD_LINE = {
    "seq2seq": ("pairs.tsv", "no tab\n"),
    "ctc": ("tones.tsv", "clips/none.wav\tabc\n"),
    "tag": ("data.tsv", "ab\tV\n"),
    "classify": ("data.jsonl", "{}\n"),
}


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("task", BAD_LINE)
def test_bad_items_that_a_training_left_out_stay_left_out(rnnprune: Program, task: str) -> None:
    name, line = BAD_LINE[task]
    file = Path(name)
    whole = file.read_text() + line
    file.write_text(whole)
    train = ("train", task, *DATA[task], *SMALL, "--skip-bad", "--out", "ckpt.pt", "--json")
    dense = rnnprune(*train).json["metric"]["value"]
    tuned = rnnprune("finetune", "ckpt.pt", "--steps", "10", "--json")
    assert (tuned.json["metric"]["dense"], f"{name}: what cannot be used is left out, as" in tuned.err) == (dense, True)

    def notes(*source: str) -> list[str]:
        told: list[str] = rnnprune("evaluate", *source, "--json").json["notes"]
        return [note for note in told if not note.startswith("--batch-size")]

    for source in ("ckpt.pt", rnnprune("export", "--json").json["file"]):
        remembered, listed = notes(source)
        assert "--skip-bad" in remembered
        assert "left out" in listed
    assert len(notes("ckpt.pt", "--skip-bad")) == 1, "asked for: not told"
    Path("other" + file.suffix).write_text(whole + line)
    told = rnnprune("evaluate", "ckpt.pt", "--data", "other" + file.suffix)
    assert (told.code, "--skip-bad" in told.err) == (3, True), "of another file nobody said so"


@pytest.mark.usefixtures("data")
def test_the_flag_is_not_remembered_where_nothing_was_bad(rnnprune: Program) -> None:
    rnnprune("train", "classify", *DATA["classify"], *SMALL, "--skip-bad", "--out", "ckpt.pt", "--json")
    entry = torch.load("ckpt.pt", weights_only=True)["rnnprune"]
    assert set(entry["data"]) == {"path", "sha256"}
