"""`export --format bsr` as a person and as a script call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def blocked(folder: Path) -> None:
    torch.manual_seed(0)
    state = torch.nn.LSTM(32, 64).state_dict()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        state[name] *= (torch.rand(16, state[name].shape[1]) < 0.1).repeat_interleave(16, 0)
    torch.save(state, folder / "b.pt")


def test_the_command(rnnprune: Callable[..., Any], folder: Path) -> None:
    blocked(folder)
    told = rnnprune("export", "b.pt", "--format", "bsr", "--values", "int8")
    assert told.code == 0, told.err
    assert told.out.startswith("b.bsr.int8.safetensors: ")
    assert "matrices in blocks: 2 (16x1)" in told.err
    assert "largest rounding error: 0." in told.err
    assert "% of the largest weight" in told.err
    found = rnnprune("export", "b.pt", "--format", "bsr", "--block", "8x1", "--json").json
    assert found["blocks"] == {"weight_ih_l0": "8x1", "weight_hh_l0": "8x1"}
    assert found["rounding_error"] == 0


def test_the_command_for_bitmasks(rnnprune: Callable[..., Any], folder: Path) -> None:
    blocked(folder)
    told = rnnprune("export", "b.pt", "--format", "bitmask", "--values", "int8")
    assert told.out.startswith("b.bitmask.int8.safetensors: ")
    assert "matrices as bitmasks: 2\n" in told.err
    assert "largest rounding error: 0." in told.err
    found = rnnprune("export", "b.pt", "--format", "bitmask", "--json").json
    assert (found["bitmasks"], found["blocks"]) == (["weight_ih_l0", "weight_hh_l0"], {})


def test_what_it_refuses(rnnprune: Callable[..., Any], folder: Path) -> None:
    blocked(folder)
    for flags, text in (
        (("--values", "int8"), "--values int8 goes with --format bitmask"),
        (("--format", "bsr", "--block", "16"), "--block takes ROWSxCOLUMNS"),
        (("--block", "16x1"), "add --format bsr"),
    ):
        told = rnnprune("export", "b.pt", *flags)
        assert (told.code, text in told.err) == (2, True), told.err


def test_a_pruned_run_tells_the_form_in_which_its_zeros_pay(rnnprune: Callable[..., Any], folder: Path) -> None:
    blocked(folder)
    for flags, form in (((), "csr"), (("--block", "16x1"), "bsr")):
        told = rnnprune("prune", "b.pt", "--target", "0.95", *flags, "--out", f"cut-{form}")
        assert f"next: rnnprune export cut-{form} --format {form}" in told.out, told.err
