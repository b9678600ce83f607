"""What the documentation has people type: commands and flags that the program knows, Python that runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.main import get_command

import rnnprune
from rnnprune.cli.app import app
from rnnprune.pruning.options import Selection
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.workflows.export import export
from rnnprune.workflows.prune import prune

ROOT = Path(__file__).parents[1]
PROGRAM: Any = get_command(app)
CALL = re.compile(r"(?:^|-m |&& )rnnprune (.+?)(?= && |$)")


def code(page: str) -> Iterator[str]:
    """The lines of its code blocks, indented or fenced; one that ends in a backslash with the next."""
    fenced = False
    for line in page.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip().removeprefix("$ ")


def typed(page: str) -> list[str]:
    """The arguments of every call of rnnprune in the code of a page."""
    return [call for line in code(page) for call in CALL.findall(line)]


FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
PAGES = {str(path.relative_to(ROOT)): calls for path in FILES if (calls := typed(path.read_text(encoding="utf-8")))}


def parse(call: str) -> None:
    """Let typer read one call, without running it; only one with a `...` may lack what it needs."""
    words = shlex.split(re.sub(r"\$\w+", "0", call), comments=True)
    command, name, rest = PROGRAM, "rnnprune", [word for word in words if word != "..."]
    while commands := getattr(command, "commands", None):
        name, *rest = rest
        command = commands[name]
    try:
        command.make_context(name, rest)
    except Exception as error:
        if type(error).__name__ != "MissingParameter" or "..." not in words:
            raise


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_is_one(page: str) -> None:
    for call in PAGES[page]:
        try:
            parse(call)
        except Exception as error:
            pytest.fail(f"rnnprune {call}: {error!r}")


def test_commands_are_found_in_either_kind_of_block() -> None:
    page = "`rnnprune a`\n\n    $ rnnprune b  # c\n\n```sh\nx -m rnnprune d \\\n  --e && rnnprune f\n```\nrnnprune g\n"
    assert typed(page) == ["b  # c", "d    --e", "f"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("reprot a.pt", "reprot"),
        ("prune a.pt --schedule hard", "No such option"),
        ("finetune a.pt --saliency luck ...", "'luck' is not one of"),
        ("prune a.pt b.pt", "unexpected extra argument"),
        ("train lm --out a.pt  # ...", "Missing parameter: data"),
    ],
)
def test_what_is_no_command_is_found(call: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        parse(call)


class MyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 48)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.rnn(x)[0]
        return outputs


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def lm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ckpt-s90 of a language model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    Path("book.txt").write_text("".join(np.random.default_rng(0).choice(list("To be or not"), 3000)), encoding="utf-8")
    task = LmTask.from_text(Path("book.txt"), LmModelSpec(hidden=48, embedding=12))
    torch.save({"model": task.build_model().state_dict(), "rnnprune": task.metadata}, "ckpt.pt")
    prune(Path("ckpt.pt"), 0.9, Selection(), Path("ckpt-s90"))
    export(Path("ckpt-s90"), "csr")


@pytest.mark.usefixtures("lm")
def test_the_python_of_the_readme_and_of_the_runtime_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    model = MyModel()
    names: dict[str, Any] = {"torch": torch, "MyModel": MyModel, "model": model}
    names |= {"optimizer": torch.optim.Adam(model.parameters()), "loss": lambda f, x: f(x).square().mean()}
    names |= {"batches": list(torch.randn(40, 5, 2, 8))}
    train, run = python_of("README.md")
    exec(train, names)
    assert names["pruner"].sparsity == pytest.approx(0.9, abs=1e-3)
    Path("run").mkdir()
    for file in ("run/model.csr.safetensors", "model.csr.safetensors"):
        export(Path("pruned.pt"), "csr", out=Path(file))
    exec(run, names)
    assert "rnn (GRU): " in capsys.readouterr().out

    load, feed = python_of("docs/runtime.md")
    exec(load, names)
    assert capsys.readouterr().out.startswith("rnn ")
    exec(feed, names)
    dense, ids = LmModelSpec.from_dict(names["spec"]).build().eval(), names["ids"]
    dense.load_state_dict(rnnprune.read_checkpoint("ckpt-s90/model.safetensors").state_dict())
    told = torch.cat((ids, dense(ids)[0][:, -1:].argmax(-1)), 1)
    torch.testing.assert_close(names["logits"], dense(told)[0][:, -1:])
