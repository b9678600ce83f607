"""`task new` and `task check`: the template carries the whole path, and every broken task is told what to mend."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rnnprune.kernels import native
from tests.cli.conftest import Call

TEMPLATE = "own_task.py"


@pytest.fixture
def task(folder: Path, rnnprune: Call) -> Path:
    """The template, and the checkpoint that it writes when it is run."""
    assert rnnprune("task", "new", TEMPLATE).code == 0
    runpy.run_path(TEMPLATE, run_name="__main__")
    return folder / TEMPLATE


def test_the_template_works_as_it_stands(rnnprune: Call, task: Path) -> None:
    assert TEMPLATE in task.read_text()
    assert "my_task" not in task.read_text()
    told = rnnprune("task", "check", f"{TEMPLATE}:make", "my_model.pt", "--json").json
    assert told["passed"] is True
    assert len(told["checks"]) == 6
    told = rnnprune("finetune", "my_model.pt", "--task", f"{TEMPLATE}:make", "--steps", "40", "--json").json
    assert told["sparsity"]["achieved"] == pytest.approx(0.9, abs=1e-3)
    rnnprune("export", "--json").json  # noqa: B018 - asserts that it went well
    sparse = rnnprune("evaluate", "my_model-s90/model.csr.safetensors", "--task", f"{TEMPLATE}:make", "--json").json
    assert sparse["value"] == pytest.approx(told["metric"]["sparse"], rel=1e-4)
    assert ("native" in sparse["engine"]) == (native.unavailable_reason() is None)


def test_nothing_is_replaced_unasked(rnnprune: Call, task: Path) -> None:
    task.write_text("mine")
    told = rnnprune("task", "new", TEMPLATE)
    assert (told.code, task.read_text()) == (2, "mine")
    assert "--overwrite" in told.err
    assert rnnprune("task", "new", "task.txt").code == 2


BROKEN: list[tuple[str, str, str]] = [  # what is changed in the template, into what, and what the check says
    ("hidden_size=64", "hidden_size=32", "rnn.weight_hh_l0: expected [96, 32], found [192, 64]"),
    ("1_000_003 * seed + epoch", "torch.seed() % 1000", "gave other batches the second time"),
    ("batches[rank::world_size][:share]", "batches[:share]", "rank 0 and rank 1 of world_size=2 got the same batch"),
    ("return F.mse_loss", "return 0 / 0 + F.mse_loss", ": loss() failed: ZeroDivisionError"),
    ("return F.mse_loss(", "return torch.log(-1 - F.mse_loss(", "was never closed"),
    ("return F.mse_loss", "return float('inf') * F.mse_loss", "the loss is inf"),
    ("return F.mse_loss(model(batch[:, :-1]), batch[:, 1:])", "return batch.sum()", "must return a scalar tensor that"),
    (
        "hidden, _ = self.rnn(x)",
        "hidden, _ = self.rnn(x); hidden = hidden.detach()",
        "no gradient reaches rnn.weight_ih",
    ),
    ('{"MSE": F', '{"MSE": float(torch.rand(())) + F', "it must not depend on chance"),
    ('{"MSE": F', '{"mse": F', "the task's metric is 'MSE', but its evaluate() returned only mse"),
    ("for batch in batches[rank::world_size][:share]]", "for batch in []]", "gave no batch"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_every_broken_task_is_told_what_to_mend(rnnprune: Call, task: Path, old: str, new: str, message: str) -> None:
    text = task.read_text()
    assert text.count(old) == 1
    task.write_text(text.replace(old, new))
    told = rnnprune("task", "check", f"{TEMPLATE}:make", "my_model.pt")
    assert told.code == 2
    assert message in told.out
    assert "FAILED" in told.out
    assert "checks failed" in told.err


@pytest.fixture
def plugin(task: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an installed package on the path, as its metadata tells it, that offers the template."""

    def install(name: str) -> None:
        metadata = task.parent / "acme_tasks-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tasks\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[rnnprune.tasks]\n{name} = own_task:make\n")
        monkeypatch.syspath_prepend(task.parent)

    return install


def test_an_installed_plugin_is_a_task_by_its_name(rnnprune: Call, plugin: Callable[[str], None]) -> None:
    plugin("acme")
    assert rnnprune("task", "check", "acme", "my_model.pt", "--json").json["passed"] is True
    told = rnnprune("finetune", "my_model.pt", "--task", "amce")
    assert told.code == 2
    assert "installed plugins: acme" in told.err


@pytest.mark.usefixtures("task")
def test_a_checkpoint_that_the_task_was_not_made_for(rnnprune: Call) -> None:
    torch.save(torch.nn.LSTM(3, 5).state_dict(), "other.pt")
    told = rnnprune("task", "check", f"{TEMPLATE}:make", "other.pt")
    assert told.code == 2
    assert "does not fit the task's model: missing output.bias" in told.out
