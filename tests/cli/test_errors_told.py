"""Every error a user can make: its exit code, what it says, and what it leaves alone."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from rnnprune.workflows import finetune as finetune_workflow
from rnnprune.workflows import report as report_workflow

Program = Callable[..., Any]
TASK = """
import torch
from torch import nn

class Mine:
    metric, goal = "error", "min"

    def build_model(self):
        return nn.ModuleDict({{"encoder": nn.LSTM(6, {hidden}), "head": nn.Linear({hidden}, 5)}})

    def train_batches(self, *, epoch, seed, rank, world_size):
        return [torch.ones(4, 2, 6)] * 3

    def loss(self, model, batch):
        {loss}

    def evaluate(self, model, split):
        return {{"error": 1.0}}

def make():
    return Mine()
"""
GOOD_LOSS = 'return model["head"](model["encoder"](batch)[0]).square().mean()'


def write_task(hidden: int = 10, loss: str = GOOD_LOSS) -> str:
    Path("mine.py").write_text(TASK.format(hidden=hidden, loss=loss))
    return "mine.py:make"


USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "missing file": (("report", "missing.pt"), "missing.pt"),
    "unknown command": (("reprot",), "No such command 'reprot'. Did you mean 'report'"),
    "unknown flag": (("report", "bare.pt", "--jsno"), "No such option: --jsno (Possible options: --json)"),
    "flag of another command": (("prune", "bare.pt", "--schedule", "hard"), "No such option: --schedule"),
    "unknown choice": (
        ("finetune", "bare.pt", "--saliency", "luck"),
        "for '--saliency': 'luck' is not one of 'magnitude', 'fisher'",
    ),
    "no argument": (("finetune",), "Missing argument"),
    "target above one": (("prune", "bare.pt", "--target", "1.5"), "--target is the share of zeros, between 0 and 1"),
    "target of zero": (("finetune", "bare.pt", "--target", "0"), "(0.9 keeps a tenth); found 0.0"),
    "target in percent": (("prune", "bare.pt", "--target", "90"), "found 90.0"),
    "no such pattern": (
        ("prune", "bare.pt", "--exclude", "heads.*"),
        "--exclude 'heads.*' matches no tensor; did you mean head.",
    ),
    "no share": (
        ("prune", "bare.pt", "--target-of", "head.*=much"),
        "--target-of takes PATTERN=SHARE, such as 'output.*=0.8'; found 'head.*=much'",
    ),
    "everything excluded": (("prune", "bare.pt", "--exclude", "*"), "nothing to prune"),
    "a vector included": (("prune", "bare.pt", "--include", "head.bias"), "only matrices can be pruned"),
    "block": (("prune", "bare.pt", "--block", "16"), "--block takes ROWSxCOLUMNS, such as 16x1 or 8x4; found '16'"),
    "no run here": (("export",), "no run folder in"),
    "unknown engine": (
        ("bench", "bare.pt", "--engines", "torch-csr,warp"),
        "--engines: unknown warp; there are torch-dense-fp32, torch-dense-int8, torch-csr, scipy-csr",
    ),
    "batch": (("bench", "bare.pt", "--batch", "1,x"), "--batch takes whole numbers such as 1,16; found '1,x'"),
    "no rounds": (("bench", "bare.pt", "--rounds", "0"), "--rounds must be at least 1, found 0"),
    "threads": (("evaluate", "bare.pt", "--threads", "0"), "--threads must be at least 1, found 0"),
    "revive with cubic": (
        ("finetune", "bare.pt", "--revive", "--slope-ratio", "1.9", "--ramp", "0.1"),
        "--ramp, --slope-ratio, --revive: cubic reads --start, --end, --frequency; drop the others, or choose gradual",
    ),
    "an end with hard": (
        ("finetune", "bare.pt", "--schedule", "hard", "--end", "0.4", "--frequency", "5"),
        "--end, --frequency: hard reads --start; drop the others",
    ),
    "slopes for none of the methods": (
        ("sweep", "bare.pt", "--methods", "hard,cubic", "--slope-ratio", "1.9"),
        "--slope-ratio: hard, cubic read --start, --end, --frequency; drop the others",
    ),
    "pruning of a dense run": (
        ("finetune", "bare.pt", "--dense", "--schedule", "gradual", "--scope", "model", "--revive"),
        "--dense prunes nothing: drop --schedule, --revive, --scope",
    ),
    "no threads": (("sweep", "bare.pt", "--threads", "0"), "--threads must be at least 1, found 0"),
    "no such device": (("bench", "bare.pt", "--device", "mps"), "--device mps: no such device; use cpu or cuda"),
    "no such CPU": (("bench", "bare.pt", "--device", "cpu:foo"), "--device cpu:foo: no such device; use cpu or cuda"),
    "steps and epochs": (("finetune", "bare.pt", "--steps", "5", "--epochs", "1"), "--steps and --epochs both"),
    "save every": (
        ("finetune", "bare.pt", "--save-every", "0"),
        "--save-every takes steps (500) or minutes (10m), above",
    ),
    "save every day": (("finetune", "bare.pt", "--save-every", "1d"), "above 0; found '1d'"),
    "fp16 on the CPU": (
        ("finetune", "bare.pt", "--task", "mine.py:make", "--precision", "fp16"),
        "--precision fp16 needs --device cuda, found cpu; use bf16",
    ),
    "device": (("finetune", "bare.pt", "--device", "abacus", "--task", "mine.py:make"), "use cpu or cuda"),
    "a search with a target": (
        ("finetune", "bare.pt", "--max-loss", "1%", "--target", "0.9"),
        "--max-loss finds the target by itself, in one process: drop --target and --nproc",
    ),
    "a search with a target for some": (
        ("finetune", "bare.pt", "--max-loss", "1%", "--target-of", "head.*=0.5"),
        "--max-loss raises one target for all, from 50 % on: drop --target-of and --n-of-m (--exclude keeps",
    ),
    "a budget": (("sweep", "bare.pt", "--max-loss", "some"), "--max-loss takes a share of the control's figure (1%)"),
    "an unknown method": (
        ("sweep", "bare.pt", "--methods", "cubic,soft"),
        "--methods must be one of gradual, cubic, hard",
    ),
    "shares": (
        ("sweep", "bare.pt", "--targets", "0.9;0.8"),
        "--targets takes shares such as 0.9,0.95; found '0.9;0.8'",
    ),
    "a picture": (("sweep", "bare.pt", "--picture", "front.bmp"), "expected a name that ends in .png, .svg, .pdf"),
    "no jobs": (("sweep", "bare.pt", "--jobs", "0"), "--jobs must be at least 1, found 0"),
    "a lesson": (
        ("finetune", "bare.pt", "--distill", "--distill-weight", "2", "--task", "mine.py:make"),
        "--distill-weight is a share of the loss, above 0 and at most 1; found 2.0",
    ),
    "a task without logits": (
        ("finetune", "bare.pt", "--distill", "--task", "mine.py:make"),
        "--distill needs the logits of the task, and Mine does not give them: add a method loss_and_logits",
    ),
    "a lesson about a lesson": (
        ("finetune", "bare.pt", "--distill", "--task", "distill", "--inputs", "x.npy"),
        "--task distill is one without, drop --distill",
    ),
    "onto itself": (("export", "bare.pt", "--out", "bare.pt"), "is the file that is being exported"),
    "batch size of zero": (
        ("train", "lm", "--data", "letters.txt", "--out", "x.pt", "--batch-size", "0"),
        "batch size 0, sequence length 100: both must be at least 1",
    ),
    "no text": (("train", "lm", "--data", "nothing.txt", "--out", "x.pt"), "nothing.txt: does not exist"),
}


def words(text: str) -> str:
    """Without line breaks and the frame that typer draws around its own errors."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())


@pytest.mark.usefixtures("bare", "letters")
@pytest.mark.parametrize(("arguments", "text"), USAGE.values(), ids=USAGE.keys())
def test_a_wrong_call_exits_with_2_and_says_why(rnnprune: Program, arguments: tuple[str, ...], text: str) -> None:
    write_task()
    told = rnnprune(*arguments)
    assert told.code == 2
    assert text in words(told.err)
    assert told.out == ""
    assert not list(Path().glob("*/rnnprune.json"))


@pytest.mark.usefixtures("bare")
def test_a_checkpoint_without_a_task_is_shown_the_ways_on(rnnprune: Program) -> None:
    told = rnnprune("finetune", "bare.pt", "--target", "0.9")
    assert told.code == 2
    assert "bare.pt does not say which task it was trained for" in told.err
    assert "encoder: LSTM 6 -> 10" in told.err
    assert "rnnprune finetune bare.pt --task my_task.py:make" in told.err
    assert "rnnprune prune bare.pt --target 0.9" in told.err
    assert "rnnprune evaluate bare.pt --task" in rnnprune("evaluate", "bare.pt").err


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


@pytest.mark.parametrize("command", ["report", "prune", "finetune", "export", "bench", "evaluate"])
@pytest.mark.parametrize("how", ["pickle", "torch zip"])
def test_a_hostile_checkpoint_is_refused_and_never_run(rnnprune: Program, folder: Path, command: str, how: str) -> None:
    canary, path = folder / "canary", folder / "hostile.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"epoch": Bomb(canary)}))
    else:
        torch.save({"state_dict": {"rnn.weight_hh_l0": torch.ones(4, 1)}, "epoch": Bomb(canary)}, path)
    told = rnnprune(command, "hostile.pt")
    assert told.code == 3
    assert told.err.startswith("rnnprune: hostile.pt: ")
    assert "system" in told.err
    assert not canary.exists()


def test_a_corrupt_sparse_file_is_refused_by_the_name_of_its_tensor(rnnprune: Program, bare: Path) -> None:
    assert rnnprune("prune", bare).code == 0
    assert rnnprune("export", "--out", "sparse.safetensors").code == 0
    with safe_open("sparse.safetensors", framework="pt") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    arrays["encoder.weight_hh_l0.indices_1"][0] = 10  # there are columns 0 to 9
    safetensors.torch.save_file(arrays, "broken.safetensors", metadata)
    for command in ("report", "bench", "export"):
        told = rnnprune(command, "broken.safetensors")
        assert told.code == 3
        assert "encoder.weight_hh_l0: a column index of 10 lies outside 0..9" in told.err
    Path("cut.safetensors").write_bytes(Path("sparse.safetensors").read_bytes()[:-5])
    assert rnnprune("report", "cut.safetensors").code == 3


@pytest.mark.usefixtures("bare")
def test_a_finished_run_is_not_replaced_unasked(rnnprune: Program) -> None:
    assert rnnprune("prune", "bare.pt").code == 0
    before = Path("bare-s90/rnnprune.json").read_bytes()
    for command in (["prune", "bare.pt"], ["finetune", "bare.pt", "--task", write_task(), "--steps", "20"]):
        told = rnnprune(*command)
        assert told.code == 2
        assert "bare-s90 already holds a finished run; choose another --out, or pass --overwrite" in told.err
        assert Path("bare-s90/rnnprune.json").read_bytes() == before
    assert rnnprune("prune", "bare.pt", "--overwrite").code == 0


@pytest.mark.usefixtures("bare")
def test_an_export_does_not_replace_that_of_another_run_unasked(rnnprune: Program) -> None:
    for run, target in (("a", "0.9"), ("b", "0.5")):
        assert rnnprune("prune", "bare.pt", "--target", target, "--out", run).code == 0
    assert rnnprune("export", "a", "--out", "small.safetensors").code == 0
    before = Path("small.safetensors").read_bytes()
    told = rnnprune("export", "b", "--out", "small.safetensors")
    assert told.code == 2
    assert "small.safetensors is already there; choose another --out, or pass --overwrite" in told.err
    assert Path("small.safetensors").read_bytes() == before
    assert rnnprune("export", "b", "--out", "small.safetensors", "--overwrite").code == 0
    assert Path("small.safetensors").stat().st_size > len(before)
    for _ in range(2):  # under the default name an export replaces the older one of the same file
        assert rnnprune("export", "a").code == 0


@pytest.mark.usefixtures("bare")
def test_a_model_that_does_not_fit_lists_every_difference(rnnprune: Program) -> None:
    task = write_task(hidden=12)
    told = rnnprune("finetune", "bare.pt", "--task", task)
    assert told.code == 2
    for line in (
        "encoder.bias_hh_l0: expected [48], found [40]",
        "encoder.bias_ih_l0: expected [48], found [40]",
        "encoder.weight_hh_l0: expected [48, 12], found [40, 10]",
        "encoder.weight_ih_l0: expected [48, 6], found [40, 6]",
        "head.weight: expected [5, 12], found [5, 10]",
    ):
        assert line in told.err
    assert "head.bias" not in told.err
    torch.save({"encoder.weight_hh_l0": torch.ones(40, 10), "extra": torch.ones(1)}, "partial.pt")
    told = rnnprune("evaluate", "partial.pt", "--task", write_task(hidden=10))
    assert told.code == 2
    assert "missing encoder.bias_hh_l0" in told.err
    assert "unexpected extra" in told.err


@pytest.mark.usefixtures("bare")
def test_a_loss_of_nan_stops_with_5_and_leaves_no_finished_run(rnnprune: Program) -> None:
    task = write_task(loss='return model["head"].weight.sum() * float("nan")')
    told = rnnprune("finetune", "bare.pt", "--task", task, "--steps", "20")
    assert told.code == 5
    assert "the loss is nan and the norm of the gradients nan at step 1, in 10 batches in a row; try a" in told.err
    assert not Path("bare-s90/rnnprune.json").exists()
    assert rnnprune("report").code == 2


@pytest.mark.usefixtures("bare")
def test_a_weight_of_nan_stops_with_5_before_any_work(rnnprune: Program) -> None:
    state = torch.load("bare.pt", weights_only=True)
    state["head.weight"][1, 2] = float("nan")
    torch.save(state, "bad.pt")
    told = rnnprune("finetune", "bad.pt", "--task", write_task(), "--steps", "20")
    assert told.code == 5
    assert "bad.pt: head.weight holds NaN or infinity; give a checkpoint from before it diverged" in told.err
    told = rnnprune("prune", "bad.pt")
    assert told.code == 5
    assert "bad.pt: head.weight holds NaN or infinity" in told.err
    assert not Path("bad-s90").exists()


@pytest.mark.usefixtures("bare")
def test_a_run_that_fails_leaves_the_one_it_was_to_replace_as_it_was(rnnprune: Program) -> None:
    assert rnnprune("finetune", "bare.pt", "--task", write_task(), "--steps", "20").code == 0
    before = {path.name: path.read_bytes() for path in Path("bare-s90").iterdir()}
    task = write_task(loss='return model["head"].weight.sum() * float("nan")')
    assert rnnprune("finetune", "bare.pt", "--task", task, "--steps", "20", "--overwrite").code == 5
    assert {name: Path("bare-s90", name).read_bytes() for name in before} == before
    assert rnnprune("report").code == 0


@pytest.mark.usefixtures("bare")
def test_an_error_inside_the_users_loss_is_not_called_a_full_disk(rnnprune: Program) -> None:
    task = write_task(loss='open("no_such_data.bin")')
    with pytest.raises(FileNotFoundError, match=r"no_such_data\.bin"):
        rnnprune("finetune", "bare.pt", "--task", task, "--steps", "20")


@pytest.mark.usefixtures("bare", "letters")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("export", "bare.pt", "--out", "nowhere/x.safetensors"), "create the folder first"),
        (("train", "lm", "--data", "letters.txt", "--out", "nowhere/x.pt"), "create the folder first"),
        (("prune", "bare.pt", "--out", "letters.txt"), "letters.txt: cannot make the run folder"),
        (("prune", "bare.pt", "--out", "letters.txt/run"), "cannot make the run folder"),
    ],
    ids=["export", "train", "prune onto a file", "prune below a file"],
)
def test_a_place_that_cannot_be_written_exits_with_6(rnnprune: Program, arguments: tuple[str, ...], text: str) -> None:
    told = rnnprune(*arguments)
    assert told.code == 6
    assert text in told.err
    assert "steps/s" not in told.err, "found out before any work is spent"


@pytest.mark.usefixtures("bare")
def test_a_read_only_folder_exits_with_6(rnnprune: Program, folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write anywhere")
    assert rnnprune("prune", "bare.pt", "--out", "locked/run").code == 6
    assert rnnprune("export", "bare.pt", "--out", "locked/x.safetensors").code == 6


@pytest.mark.usefixtures("bare")
def test_ctrl_c_exits_with_130(rnnprune: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report_workflow, "report", interrupted)
    told = rnnprune("report", "bare.pt")
    assert (told.code, told.out) == (130, "")
    assert "rnnprune: interrupted" in told.err

    monkeypatch.setattr(finetune_workflow, "evaluate", interrupted)  # in the middle of the work, progress bar and all
    told = rnnprune("finetune", "bare.pt", "--task", write_task(), "--steps", "20")
    assert told.code == 130
    assert not Path("bare-s90/rnnprune.json").exists()
