"""The examples of a Pruner in somebody else's trainer end at the target, to the element, in real optimizer steps."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

TRAINERS = Path(__file__).parents[2] / "examples" / "trainers"
PRUNED = ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "output.weight")
ZEROS = 3514  # of 768, 3072 and 64 weights


@pytest.fixture
def example(monkeypatch):
    """An example by its name, imported as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(TRAINERS))

    def load(name: str, needs: str = "torch") -> ModuleType:
        pytest.importorskip(needs, reason=f"{needs} is not installed; pip install 'rnnprune[trainers]'")
        return importlib.import_module(name)

    return load


def zeros(model):
    return sum(int((model.get_parameter(name) == 0).sum()) for name in PRUNED)


@pytest.mark.parametrize(("name", "needs"), [("plain", "torch"), ("accelerate_trainer", "accelerate")])
def test_a_loop_ends_at_the_target_in_real_steps(example, name, needs):
    plain = example("plain")
    model = plain.Tagger()
    assert example(name, needs).train(model, plain.made_up(60)).step_count == 30  # two batches are one step
    assert zeros(model) == ZEROS


def test_a_step_that_the_scaler_skips_does_not_count(example):
    plain = example("plain")
    model, batches = plain.Tagger(), plain.made_up(60)
    batches[10][0].fill_(torch.inf)
    assert plain.train(model, batches).step_count == 29
    assert zeros(model) == ZEROS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # lightning's advice on loaders and loggers
def test_lightning_ends_at_the_target_and_its_checkpoint_brings_the_masks_back(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # lightning writes its checkpoints here
    plain, lightning = example("plain"), example("lightning_trainer", "pytorch_lightning")
    first, second = lightning.Pruning(0.9), lightning.Pruning(0.9)
    model, batches = plain.Tagger(), plain.made_up(60)
    lightning.train(model, batches, first).save_checkpoint("first.ckpt")
    assert first.pruner.step_count == 30
    assert zeros(model) == ZEROS
    again = plain.Tagger()
    lightning.train(again, batches, second, epochs=2, ckpt_path="first.ckpt")
    assert second.pruner.step_count == 60
    assert zeros(again) == ZEROS
    assert all(torch.equal(mask, first.pruner.masks[name]) for name, mask in second.pruner.masks.items())
