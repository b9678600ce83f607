"""What the tests of the checkpoint reader share: two small tensors, how to save them, and the one comparison."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

W, V = torch.ones(2), torch.zeros(3)


def saved(tmp_path: Path, tree: object) -> Path:
    path = tmp_path / "model.pt"
    torch.save(tree, path)
    return path


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name
