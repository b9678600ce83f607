"""Checkpoints of other people, in other layouts, through report, prune and export without any code of theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rnnprune.errors import InputRefused
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.pruning.options import Selection
from rnnprune.workflows.export import export
from rnnprune.workflows.prune import prune
from rnnprune.workflows.report import report

State = dict[str, Tensor]


def save_npz(state: State, path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})


def nested(state: State, path: Path) -> None:
    inner = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "model": {"state_dict": inner}, "optimizer": {"exp_avg": torch.ones(3)}}, path)


# how it is made, how it is saved, the suffix, what the report must call it
LAYOUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[State, Path], None], str, str]] = {
    "cell": (lambda: nn.GRUCell(6, 10), torch.save, "pt", "top level: GRUCell 6 -> 10"),
    "bidirectional projection": (
        lambda: nn.LSTM(6, 10, 2, bidirectional=True, proj_size=4),
        torch.save,
        "pt",
        "top level: LSTM 6 -> 10, projected to 4, 2 layers, bidirectional",
    ),
    "nested prefix": (lambda: nn.ModuleDict({"a": nn.RNN(6, 10)}), nested, "ckpt", "a: RNN 6 -> 10"),
    "half": (lambda: nn.LSTM(6, 10).half(), torch.save, "pt", "top level: LSTM 6 -> 10"),
    "bfloat16": (lambda: nn.LSTM(6, 10).bfloat16(), torch.save, "pt", "top level: LSTM 6 -> 10"),
    "double": (lambda: nn.GRU(6, 10).double(), torch.save, "pt", "top level: GRU 6 -> 10"),
    "npz": (lambda: nn.GRU(6, 10), save_npz, "npz", "top level: GRU 6 -> 10"),
    "safetensors": (
        lambda: nn.ModuleDict({"enc.rnn".replace(".", "_"): nn.GRU(6, 10)}),
        safetensors.torch.save_file,
        "safetensors",
        "enc_rnn: GRU 6 -> 10",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_reported_pruned_and_exported(tmp_path: Path, layout: str) -> None:
    make, save, suffix, label = LAYOUTS[layout]
    state = {name: tensor.detach().contiguous() for name, tensor in make().state_dict().items()}
    path = tmp_path / f"model.{suffix}"
    save(state, path)
    result = report(path)
    assert result.stacks == (label,)
    assert {tensor.name: tensor.shape for tensor in result.tensors} == {n: tuple(t.shape) for n, t in state.items()}

    pruned = prune(path, 0.75, Selection(), tmp_path / "run")
    matrices = {name for name, tensor in state.items() if tensor.dim() == 2}
    assert set(pruned.per_tensor) == matrices
    found = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        if name in matrices:
            check_cut(found[name], tensor, 0.75)
        else:
            assert torch.equal(found[name], tensor)

    exported = export(tmp_path / "run", "csr")
    again = read_checkpoint(exported.path).state_dict()
    for name, tensor in found.items():
        assert torch.equal(again[name], tensor.float() if tensor.dim() == 2 else tensor)


def check_cut(found: Tensor, before: Tensor, target: float) -> None:
    """Exactly the count, what is left is untouched, and nothing dropped is larger than what is left."""
    kept = found != 0
    assert int(kept.sum()) == found.numel() - round(target * found.numel())
    assert torch.equal(found[kept], before[kept])
    assert before[~kept].abs().max() <= before[kept].abs().min()


@pytest.mark.parametrize("dropped_first", ["output.weight", "embedding.weight"])
def test_tied_weights_are_reported_once_exported_once_and_never_half_pruned(tmp_path: Path, dropped_first: str) -> None:
    """A linear layer tied to an embedding is left alone, whichever of the two names comes first in the file."""
    shared = torch.randn(9, 10)
    names = [dropped_first, *({"output.weight", "embedding.weight"} - {dropped_first})]
    state = dict.fromkeys(names, shared) | {"output.bias": torch.zeros(9)}
    state |= {f"rnn.{name}": tensor for name, tensor in nn.LSTM(10, 10).state_dict().items()}
    torch.save(state, tmp_path / "tied.pt")
    result = report(tmp_path / "tied.pt")
    assert result.aliases == {names[1]: names[0]}
    assert [tensor.name for tensor in result.tensors].count(names[0]) == 1
    assert names[1] not in [tensor.name for tensor in result.tensors]
    assert result.total.bytes.dense == 4 * (90 + 9 + 2 * 400 + 2 * 40)

    pruned = prune(tmp_path / "tied.pt", 0.9, Selection(), tmp_path / "run")
    assert set(pruned.per_tensor) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    exported = export(tmp_path / "run", "csr").path
    again = read_checkpoint(exported)
    assert again.aliases == {names[1]: names[0]}
    assert torch.equal(again.state_dict()[names[1]], shared)
    stored = safetensors.torch.load_file(exported)
    assert sum(name.startswith(tuple(names)) for name in stored) == 1


def test_recurrent_layers_that_share_a_matrix_are_still_recognised(tmp_path: Path) -> None:
    module = nn.LSTM(10, 10, 2)
    module.weight_hh_l1 = module.weight_hh_l0
    torch.save(module.state_dict(), tmp_path / "tied.pt")
    reasons = {tensor.name: tensor.reason for tensor in report(tmp_path / "tied.pt").tensors}
    assert reasons["weight_hh_l0"] == "recurrent weight, not pruned yet"
    pruned = prune(tmp_path / "tied.pt", 0.9, Selection(), tmp_path / "run")
    assert pruned.per_tensor == {"weight_ih_l0": 0.9, "weight_hh_l0": 0.9, "weight_ih_l1": 0.9}


def test_a_foreign_entry_under_our_key_is_refused_not_a_crash(tmp_path: Path) -> None:
    torch.save({"rnnprune": {"version": torch.ones(1)}, "state_dict": nn.GRU(6, 10).state_dict()}, tmp_path / "odd.pt")
    with pytest.raises(InputRefused, match=r"odd\.pt: a `rnnprune` entry that is not plain data"):
        export(tmp_path / "odd.pt", "csr")
