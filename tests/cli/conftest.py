"""What the tests of the command line share: the program called in this process, and one small finished run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rnnprune.cli.app import app

SIZES = ("--seq-len", "20", "--batch-size", "8")


@dataclass(frozen=True)
class Told:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Exactly one JSON object, strict, and nothing else on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out, parse_constant=pytest.fail)


Call = Callable[..., Told]


def call(*args: object, env: Mapping[str, str] | None = None) -> Told:
    """Run a command as the shell would; an exception that is a bug is raised here, not turned into exit code 1."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Told(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def rnnprune() -> Call:
    return call


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RNNPRUNE_") or name in {"FORCE_COLOR", "NO_COLOR"}:
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_letters(path: Path) -> Path:
    """2000 characters drawn from ten."""
    path.write_text("".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 2000)), encoding="utf-8")
    return path


def write_words(path: Path) -> Path:
    """300 lines of four words drawn from twenty."""
    drawn = np.random.default_rng(0).choice([f"w{i}" for i in range(20)], (300, 4))
    path.write_text("".join(" ".join(line) + "\n" for line in drawn), encoding="utf-8")
    return path


@pytest.fixture
def letters(folder: Path) -> Path:
    return write_letters(folder / "letters.txt")


@pytest.fixture
def words(folder: Path) -> Path:
    return write_words(folder / "words.txt")


@dataclass(frozen=True)
class Finished:
    """A folder with letters.txt, the dense ckpt.pt, and the run ckpt-s90 with its model.csr.safetensors."""

    folder: Path
    told: dict[str, Told]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    torch.set_num_threads(1)
    told = {}
    with chdir(folder):
        write_letters(folder / "letters.txt")
        sizes = ("--hidden", "16", "--embedding", "8", "--steps", "20", *SIZES)
        told["train lm"] = call("train", "lm", "--data", "letters.txt", "--out", "ckpt.pt", *sizes, "--json")
        told["finetune"] = call("finetune", "ckpt.pt", "--steps", "40", "--control", *SIZES, "--json")
        told["export"] = call("export", "--json")
    return Finished(folder, told)


@pytest.fixture
def finished(made_once: Finished, folder: Path) -> Finished:
    """A copy of the finished run in the current folder, free to be broken."""
    shutil.copytree(made_once.folder, folder, dirs_exist_ok=True)
    return Finished(folder, made_once.told)


@pytest.fixture
def bare(folder: Path) -> Path:
    """A third party's bare state dict: an LSTM and a linear layer, nothing that names a task."""
    model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(6, 10), "head": torch.nn.Linear(10, 5)})
    torch.save(model.state_dict(), folder / "bare.pt")
    return Path("bare.pt")
