"""What the checkpoint reader makes of names, masks, ties and views."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from rnnprune.architecture import find_stacks
from rnnprune.errors import InputRefused
from rnnprune.formats.checkpoint import read_checkpoint
from tests.formats.checkpoint_cases import V, W, assert_same, saved

# Names


def test_wrappers_are_taken_off_the_names(tmp_path: Path, lstm: nn.LSTM) -> None:
    plain = nn.Sequential(OrderedDict(rnn=lstm, fc=nn.Linear(8, 2)))
    parallel = nn.DataParallel(plain)
    checkpoint = read_checkpoint(saved(tmp_path, parallel.state_dict()))
    assert_same(checkpoint.tensors, plain.state_dict())
    assert checkpoint.notes == ("`module.` (DataParallel) was taken off every name.",)

    compiled = nn.DataParallel(torch.compile(plain, backend="eager"))
    checkpoint = read_checkpoint(saved(tmp_path, compiled.state_dict()))
    assert_same(checkpoint.tensors, plain.state_dict())
    assert len(checkpoint.notes) == 2


def test_a_module_called_module_is_no_wrapper(tmp_path: Path) -> None:
    state = {"module.w": W, "other.w": V}
    assert_same(read_checkpoint(saved(tmp_path, state)).tensors, state)


def test_pruning_masks_are_folded_as_torch_folds_them(tmp_path: Path, lstm: nn.LSTM) -> None:
    for name in ("weight_ih_l0", "weight_hh_l1_reverse"):
        prune.l1_unstructured(lstm, name, amount=0.5)
    state = lstm.state_dict()
    checkpoint = read_checkpoint(saved(tmp_path, state))
    for name in ("weight_ih_l0", "weight_hh_l1_reverse"):
        prune.remove(lstm, name)
    assert {name: t.tolist() for name, t in checkpoint.tensors.items()} == {
        name: tensor.tolist() for name, tensor in lstm.state_dict().items()
    }
    assert checkpoint.notes[0].startswith("Masks of torch.nn.utils.prune were applied: weight_ih_l0, weight_hh")
    assert len(find_stacks({name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}).stacks) == 1


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"w_mask does not fit w_orig: \[3\] against \[2\]"):
        read_checkpoint(saved(tmp_path, {"w_orig": W, "w_mask": V}))


def test_a_mask_alone_is_just_a_tensor(tmp_path: Path) -> None:
    state = {"attention_mask": W, "grid_orig": V}
    assert_same(read_checkpoint(saved(tmp_path, state)).tensors, state)


def test_weight_drop_names_are_folded_for_recurrent_weights_only(tmp_path: Path) -> None:
    state = {"rnn.weight_ih_l0": V, "rnn.weight_hh_l0_raw": W, "audio_raw": V + 1}
    names = list(read_checkpoint(saved(tmp_path, state)).tensors)
    assert names == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "audio_raw"]


@pytest.mark.parametrize(
    "state",
    [
        {"a._orig_mod.w": W, "a.w": V},
        {"w_orig": W, "w_mask": W, "w": W},
        {"weight_hh_l0_raw": W, "weight_hh_l0": V},
        {"a": {"b": W}, "a.b": V},
    ],
)
def test_names_that_collide_are_refused(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(InputRefused, match="two tensors are both called"):
        read_checkpoint(saved(tmp_path, state))


def test_parametrised_weights_are_kept_and_noted(tmp_path: Path) -> None:
    new = parametrizations.weight_norm(nn.Linear(3, 2))
    state = new.state_dict()
    checkpoint = read_checkpoint(saved(tmp_path, state))
    assert_same(checkpoint.tensors, state)
    assert "parametrizations.weight.original0" in checkpoint.notes[0]
    assert "remove_parametrizations" in checkpoint.notes[0]

    old = {"conv.weight_g": torch.ones(2, 1), "conv.weight_v": torch.ones(2, 3)}
    checkpoint = read_checkpoint(saved(tmp_path, old))
    assert_same(checkpoint.tensors, old)
    assert checkpoint.notes[0].startswith("conv.weight_g, conv.weight_v: ")


# Ties and views


def test_tied_weights_are_read_once(tmp_path: Path) -> None:
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleDict({"embedding": embedding, "head": head})
    for legacy in (False, True):
        path = tmp_path / "tied.pt"
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=not legacy)
        checkpoint = read_checkpoint(path)
        assert list(checkpoint.tensors) == ["embedding.weight"]
        assert checkpoint.aliases == {"head.weight": "embedding.weight"}
        assert checkpoint.state_dict()["head.weight"] is checkpoint.tensors["embedding.weight"]
        model.load_state_dict(checkpoint.state_dict(), strict=True)


def test_tied_weights_under_one_mask_stay_tied(tmp_path: Path) -> None:
    mask = torch.tensor([1.0, 0.0])
    state = {"a.w_orig": W, "a.w_mask": mask, "b.w_orig": W, "b.w_mask": mask}
    checkpoint = read_checkpoint(saved(tmp_path, state))
    assert checkpoint.aliases == {"b.w": "a.w"}
    assert checkpoint.tensors["a.w"].tolist() == [1.0, 0.0]


def test_other_views_of_one_storage_are_not_ties(tmp_path: Path) -> None:
    storage = torch.arange(12.0).reshape(3, 4)
    state = {
        "all": storage,
        "transposed": storage.t(),
        "top": storage[:1],
        "rest": storage[1:],
        "column": storage[:, 1],
    }
    state |= {"empty": torch.zeros(0), "empty too": torch.zeros(0)}
    checkpoint = read_checkpoint(saved(tmp_path, state))
    assert_same(checkpoint.tensors, state)
    assert checkpoint.aliases == {}
    assert all(tensor.is_contiguous() for tensor in checkpoint.tensors.values())


def test_parameters_become_plain_tensors(tmp_path: Path) -> None:
    found = read_checkpoint(saved(tmp_path, {"w": nn.Parameter(W)})).tensors["w"]
    assert type(found) is Tensor
    assert not found.requires_grad
