"""One view, one key: ties are told from parts, transposes and neighbours of one storage."""

import pytest
import torch
from torch import Tensor, nn

from rnnprune.kernels.views import view_key

STORAGE = torch.arange(16.0)
SQUARE = STORAGE.view(4, 4)
NUMBER = torch.tensor([[1 + 2j]])


@pytest.mark.parametrize(
    "same", [SQUARE.view(4, 4), nn.Parameter(SQUARE), SQUARE.detach(), SQUARE.t().t(), STORAGE.view(2, 8).view(4, 4)]
)
def test_another_name_of_one_view_has_its_key(same: Tensor) -> None:
    assert view_key(same) == view_key(SQUARE) is not None


@pytest.mark.parametrize(
    "other",
    [SQUARE.t(), SQUARE[:2], SQUARE[1:], STORAGE, SQUARE.clone(), SQUARE.view(torch.int32), torch._neg_view(SQUARE)],
)
def test_another_view_of_one_storage_has_another_key(other: Tensor) -> None:
    assert view_key(other) != view_key(SQUARE)


def test_the_stride_of_a_single_row_means_nothing() -> None:
    row = STORAGE[:4]
    assert view_key(row.as_strided((1, 4), (4, 1))) == view_key(row.as_strided((1, 4), (99, 1)))


def test_a_conjugate_is_another_view() -> None:
    assert view_key(NUMBER) != view_key(NUMBER.conj())


def test_empty_and_meta_tensors_have_no_key() -> None:
    assert view_key(torch.zeros(0, 3)) is None
    assert view_key(torch.zeros(3, device="meta")) is None
