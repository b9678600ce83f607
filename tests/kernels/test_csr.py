"""The CSR type against torch, scipy and literals, and every invariant broken one at a time."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.kernels.csr import (
    Csr,
    csr_from_dense,
    csr_nbytes,
    csr_problem,
    csr_to_dense,
    index_dtype,
    pointer_dtype,
    validate_csr,
)


def random_matrix(rows: int, cols: int, density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, cols, generator=generator) < density
    return torch.randn(rows, cols, generator=generator) * keep


def full_row(rows: int, cols: int) -> Tensor:
    weight = torch.zeros(rows, cols)
    weight[rows // 2] = torch.linspace(1, 2, cols)
    return weight


AWKWARD = {
    "1x1 zero": torch.zeros(1, 1),
    "1x1 one": torch.ones(1, 1),
    "7x96": random_matrix(7, 96, 0.1, 0),
    "all zeros": torch.zeros(5, 9),
    "all nonzero": torch.ones(5, 9),
    "one full row": full_row(6, 33),
    "only the last entry": torch.tensor([[0.0, 0.0], [0.0, 3.0]]),
    "no rows": torch.zeros(0, 4),
    "no columns": torch.zeros(4, 0),
    "65,535 columns": random_matrix(3, 65_535, 0.01, 1),
    "65,536 columns": full_row(3, 65_536),
    "65,537 columns": full_row(3, 65_537),
}


def test_a_small_matrix_has_these_arrays() -> None:
    csr = csr_from_dense(torch.tensor([[0.0, 1.5, 0.0, 0.0], [0, -0.0, 0, 0], [-2.0, 0, 0, 0.25]]))
    assert csr.crow_indices.tolist() == [0, 1, 1, 3]
    assert csr.col_indices.tolist() == [1, 0, 3]
    assert csr.values.tolist() == [1.5, -2.0, 0.25]
    assert (csr.crow_indices.dtype, csr.col_indices.dtype) == (torch.int32, torch.uint16)
    assert csr.shape == (3, 4)
    assert csr.nnz == 3
    assert csr.nbytes == 4 * 4 + 3 * 2 + 3 * 4


@pytest.mark.parametrize("weight", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_awkward_shapes_round_trip(weight: Tensor, dtype: torch.dtype) -> None:
    weight = weight.to(dtype)
    csr = csr_from_dense(weight)
    validate_csr(csr)
    assert torch.equal(csr_to_dense(csr), weight)
    assert csr.nbytes == csr_nbytes(csr.shape, csr.nnz, dtype.itemsize)


@pytest.mark.parametrize(
    "weight", [w for w in AWKWARD.values() if w.numel()], ids=[k for k, w in AWKWARD.items() if w.numel()]
)
def test_scipy_and_torch_agree(weight: Tensor) -> None:
    ours, scipys = csr_from_dense(weight), scipy.sparse.csr_array(weight.numpy())
    np.testing.assert_array_equal(ours.crow_indices.numpy(), scipys.indptr)
    np.testing.assert_array_equal(ours.col_indices.numpy(), scipys.indices)
    np.testing.assert_array_equal(ours.values.numpy(), scipys.data)
    coo = weight.to_sparse_coo().coalesce()
    assert torch.equal(ours.col_indices.long(), coo.indices()[1])
    assert torch.equal(ours.values, coo.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**31))
def test_any_matrix_round_trips(rows: int, cols: int, density: float, seed: int) -> None:
    weight = random_matrix(rows, cols, density, seed)
    csr = csr_from_dense(weight)
    validate_csr(csr)
    assert torch.equal(csr_to_dense(csr), weight)
    assert csr.nnz == int(np.count_nonzero(weight.numpy()))


def test_indices_are_as_narrow_as_the_columns_allow() -> None:
    assert index_dtype(65_536) == torch.uint16
    assert index_dtype(65_537) == torch.int32
    assert pointer_dtype(2**31 - 1) == torch.int32
    assert pointer_dtype(2**31) == torch.int64
    assert csr_from_dense(full_row(1, 65_536)).col_indices.tolist()[-1] == 65_535


def test_bytes_are_counted_by_hand() -> None:
    assert csr_nbytes((768, 256), 19_661, 4) == 769 * 4 + 19_661 * 6
    assert csr_nbytes((768, 256), 19_661, 2) == 769 * 4 + 19_661 * 4
    assert csr_nbytes((2, 70_000), 10, 4) == 3 * 4 + 10 * 8
    assert csr_nbytes((2**20, 4096), 2**31, 4) == (2**20 + 1) * 8 + 2**31 * 6


def test_a_parameter_that_needs_a_gradient_is_fine() -> None:
    csr = csr_from_dense(torch.nn.Parameter(torch.eye(3)))
    assert not csr.values.requires_grad


# The valid matrix that is broken below: [[0, 1, 0, 2], [0, 0, 0, 0], [3, 4, 0, 0]]
GOOD = {"crow": [0, 2, 2, 4], "col": [1, 3, 0, 1], "values": [1.0, 2.0, 3.0, 4.0], "shape": (3, 4)}
BROKEN = {
    "pointers do not start at 0": ({"crow": [1, 2, 2, 4]}, "starts at 1"),
    "pointers are negative": ({"crow": [-1, 2, 2, 4]}, "starts at -1"),
    "pointers end early": ({"crow": [0, 2, 2, 3]}, "ends at 3"),
    "pointers end late": ({"crow": [0, 2, 2, 5]}, "ends at 5"),
    "pointers fall": ({"crow": [0, 3, 2, 4]}, "decreases after row 1"),
    "pointers leap and fall": ({"crow": [0, 2_000_000_000, 2, 4]}, "decreases after row 1"),
    "too few pointers": ({"crow": [0, 2, 4]}, "rows + 1 = 4"),
    "too many pointers": ({"crow": [0, 2, 2, 4, 4]}, "rows + 1 = 4"),
    "no pointers": ({"crow": []}, "rows + 1 = 4"),
    "index beyond the columns": ({"col": [1, 4, 0, 1]}, "4 lies outside 0..3"),
    "indices repeat": ({"col": [1, 1, 0, 1]}, "row 0 are not strictly increasing"),
    "indices unsorted": ({"col": [1, 3, 1, 0]}, "row 2 are not strictly increasing"),
    "fewer indices than values": ({"col": [1, 3, 0]}, "3 col_indices for 4 values"),
    "a NaN": ({"values": [1.0, float("nan"), 3.0, 4.0]}, "NaN"),
    "an infinity": ({"values": [1.0, float("-inf"), 3.0, 4.0]}, "infinite"),
    "a stored zero": ({"values": [1.0, 0.0, 3.0, 4.0]}, "stored value is zero"),
    "a stored minus zero": ({"values": [1.0, -0.0, 3.0, 4.0]}, "stored value is zero"),
    "three dimensions": ({"shape": (3, 4, 1)}, "3 dimensions"),
    "a negative dimension": ({"shape": (-3, -4)}, "must lie in"),
    "a dimension past int32": ({"shape": (3, 2**31)}, "must lie in"),
    "a product past int64": ({"shape": (2**31 - 1, 2**31 - 1)}, "more than the limit"),
    "a dimension that is no integer": ({"shape": (3.0, 4)}, "must lie in"),
    "a dimension that is a bool": ({"shape": (3, True)}, "must lie in"),
}


def problem_of(**changes: object) -> str | None:
    arrays = GOOD | changes
    return csr_problem(
        torch.tensor(arrays["crow"], dtype=torch.int32),
        torch.tensor(arrays["col"], dtype=torch.uint16),
        torch.tensor(arrays["values"]),
        arrays["shape"],
    )


def test_the_valid_matrix_has_no_problem() -> None:
    assert problem_of() is None


@pytest.mark.parametrize(("changes", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_invariant_is_named(changes: dict[str, object], text: str) -> None:
    assert text in (problem_of(**changes) or "nothing found")


@pytest.mark.parametrize(
    ("position", "replacement", "text"),
    [
        (0, torch.tensor([0, 2, 2, 4]), "crow_indices are int64, expected int32"),
        (0, torch.tensor([0.0, 2, 2, 4]), "crow_indices are float32"),
        (0, torch.tensor([[0, 2, 2, 4]], dtype=torch.int32), "crow_indices has shape [1, 4]"),
        (1, torch.tensor([1, 3, 0, 1], dtype=torch.int32), "col_indices are int32, expected uint16"),
        (1, torch.tensor([1, 3, 0, 1], dtype=torch.int16), "col_indices are int16"),
        (1, torch.tensor(3, dtype=torch.uint16), "col_indices has shape []"),
        (2, torch.tensor([1, 2, 3, 4]), "values are int64"),
        (2, torch.ones(4, dtype=torch.complex64), "values are complex64"),
        (2, torch.ones(2, 2), "values has shape [2, 2]"),
    ],
)
def test_a_wrong_dtype_or_rank_is_named(position: int, replacement: Tensor, text: str) -> None:
    arrays = [
        torch.tensor([0, 2, 2, 4], dtype=torch.int32),
        torch.tensor([1, 3, 0, 1], dtype=torch.uint16),
        torch.tensor([1.0, 2.0, 3.0, 4.0]),
    ]
    arrays[position] = replacement
    assert text in (csr_problem(*arrays, (3, 4)) or "nothing found")


def test_a_negative_index_of_a_wide_matrix_is_named() -> None:
    problem = csr_problem(
        torch.tensor([0, 1], dtype=torch.int32), torch.tensor([-1], dtype=torch.int32), torch.ones(1), (1, 70_000)
    )
    assert problem is not None
    assert "-1 lies outside 0..69999" in problem


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=4),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=3, max_size=3),
)
def test_no_problem_means_that_the_plain_definition_holds(crow: list[int], col: list[int], values: list[float]) -> None:
    """The vectorised check against the definition, row by row."""
    bounds = crow[0] == 0 and crow[-1] == 3 and all(a <= b for a, b in pairwise(crow))
    rows = [col[a:b] for a, b in pairwise(crow)]
    valid = bounds and all(row == sorted(set(row)) for row in rows) and max(col) < 5 and all(values)
    problem = csr_problem(
        torch.tensor(crow, dtype=torch.int32), torch.tensor(col, dtype=torch.uint16), torch.tensor(values), (3, 5)
    )
    assert (problem is None) == valid


def test_validate_names_the_matrix_and_says_what_to_do() -> None:
    csr = Csr(torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0], dtype=torch.uint16), torch.zeros(1), (1, 1))
    with pytest.raises(InputRefused, match=r"^rnn\.weight_hh_l0: a stored value is zero; .*export it again"):
        validate_csr(csr, "rnn.weight_hh_l0")
