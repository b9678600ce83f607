"""Exact counts and stable ties against a stable sort in numpy; blocks against slow loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnnprune.errors import Diverged, UsageError
from rnnprune.pruning.masks import block_scores, drop_count, expand_blocks, keep_most_salient, quantile
from rnnprune.pruning.options import Block, BlockNorm, parse_block

scores_with_ties = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 1e-30]), min_size=1, max_size=200)
any_scores = scores_with_ties | st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=200)


def kept_by_sorting(scores: Tensor, keep: int) -> np.ndarray:
    """Largest first, among equals the smaller index first."""
    array = scores.numpy()
    mask = np.zeros(array.shape, dtype=bool)
    mask[np.argsort(-array, kind="stable")[:keep]] = True
    return mask


@given(any_scores, st.data())
def test_the_most_salient_are_kept_and_ties_are_stable(values: list[float], data: st.DataObject) -> None:
    scores = torch.tensor(values)
    keep = data.draw(st.integers(0, len(values)))
    np.testing.assert_array_equal(keep_most_salient(scores, keep).numpy(), kept_by_sorting(scores, keep))


@pytest.mark.parametrize("scores", [torch.ones(100), torch.zeros(100), torch.full((100,), float("inf"))])
@pytest.mark.parametrize("keep", [0, 1, 10, 99, 100])
def test_among_equal_scores_the_first_are_kept(scores: Tensor, keep: int) -> None:
    assert keep_most_salient(scores, keep).tolist() == [True] * keep + [False] * (100 - keep)


def test_where_most_are_zero_already_the_count_is_still_exact() -> None:
    scores = torch.zeros(1000)
    scores[[3, 500, 999]] = torch.tensor([1.0, 2.0, 3.0])
    kept = keep_most_salient(scores, 100).nonzero().flatten().tolist()
    assert kept == [*range(98), 500, 999]


def test_among_equal_scores_the_tie_break_decides_and_then_the_index() -> None:
    scores = torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0])
    tie_break = torch.tensor([1.0, 0.0, 3.0, 2.0, 2.0])
    kept = [keep_most_salient(scores, keep, tie_break).nonzero().flatten().tolist() for keep in range(6)]
    assert kept == [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_wide_dtypes_are_taken(dtype: torch.dtype) -> None:
    scores = torch.rand(1000, dtype=dtype)
    np.testing.assert_array_equal(keep_most_salient(scores, 100).numpy(), kept_by_sorting(scores, 100))


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_nan_has_no_order(keep: int) -> None:
    scores = torch.tensor([1.0, float("nan"), 2.0])
    with pytest.raises(Diverged, match="saliency is NaN"):
        keep_most_salient(scores, keep)
    with pytest.raises(Diverged, match="saliency is NaN"):
        quantile(scores, 0.5)


@pytest.mark.slow
def test_more_elements_than_torch_quantile_takes() -> None:
    count, keep = 2**24 + 7, 1_677_722
    scores = torch.randint(0, 1000, (count,), dtype=torch.int16).float()
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(scores, 0.9)
    smallest = 999 - np.searchsorted(np.cumsum(np.bincount(scores.short().numpy(), minlength=1000)[::-1]), keep)
    expected = scores > smallest
    ties = (scores == smallest).nonzero().flatten()[: keep - int(expected.sum())]
    expected[ties] = True
    assert torch.equal(keep_most_salient(scores, keep), expected)
    assert int(expected.sum()) == keep
    assert quantile(scores, 0.9) == np.partition(scores.numpy(), round(0.9 * count))[round(0.9 * count)]


@given(any_scores, st.floats(0.001, 0.999))
def test_the_quantile_is_that_order_statistic(values: list[float], share: float) -> None:
    array = np.sort(np.array(values, dtype=np.float32))
    found = quantile(torch.tensor(values), share)
    assert found == array[min(round(share * len(values)), len(values) - 1)]
    step = 1 / max(1, len(values) - 1)  # a rank is never further than one from numpy's
    low, high = np.quantile(array, [max(0.0, share - step), min(1.0, share + step)], method="nearest")
    assert low <= found <= high


@pytest.mark.parametrize(
    ("target", "count", "dropped"),
    [(0.9, 1000, 900), (0.9, 7, 6), (0.9, 1, 1), (0.1, 4, 0), (0.875, 4, 4), (0.9, 48, 43)],
)
def test_the_drop_count_is_rounded(target: float, count: int, dropped: int) -> None:
    assert drop_count(target, count) == dropped


# Blocks


def scores_by_looping(scores: Tensor, block: Block, norm: BlockNorm) -> list[list[float]]:
    rows, cols = scores.shape
    cell = scores.tolist()
    reduce = max if norm == "max" else lambda cells: sum(cell * cell for cell in cells) ** 0.5
    return [
        [
            reduce(
                [cell[r][c] for r in range(i, min(i + block.rows, rows)) for c in range(j, min(j + block.cols, cols))]
            )
            for j in range(0, cols, block.cols)
        ]
        for i in range(0, rows, block.rows)
    ]


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
blocks = st.builds(Block, st.integers(1, 6), st.integers(1, 6)) | st.sampled_from([Block(1, 1), Block(16, 1)])


@given(sizes, blocks, st.sampled_from(["max", "l2"]), st.integers(0, 1000))
def test_a_blocks_score_covers_the_block_and_no_more(
    shape: tuple[int, int], block: Block, norm: BlockNorm, seed: int
) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    found = block_scores(scores, block, norm)
    torch.testing.assert_close(found, torch.tensor(scores_by_looping(scores, block, norm)))


@given(sizes, blocks, st.integers(0, 1000))
def test_every_weight_goes_with_its_block(shape: tuple[int, int], block: Block, seed: int) -> None:
    rows, cols = shape
    grid = (-(-rows // block.rows), -(-cols // block.cols))
    kept = torch.rand(grid, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask = expand_blocks(kept, block, shape)
    assert tuple(mask.shape) == shape
    assert all(mask[r, c] == kept[r // block.rows, c // block.cols] for r in range(rows) for c in range(cols))


def test_blocks_are_read_from_text() -> None:
    assert parse_block("16x1") == Block(16, 1)
    assert str(Block(8, 4)) == "8x4"


@pytest.mark.parametrize("text", ["16", "16x", "x1", "0x4", "4x0", "-1x4", "4x4x4", "4,4", ""])
def test_other_text_is_no_block(text: str) -> None:
    with pytest.raises(UsageError, match="ROWSxCOLUMNS, such as 16x1 or 8x4; found"):
        parse_block(text)
