"""What is written sparse, what half precision does to it, and what is never written."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rnnprune.errors import InputRefused, StorageError, UsageError
from rnnprune.formats.sparse import (
    cast_values,
    csr_or_dense,
    densify,
    read_sparse,
    write_sparse,
)
from rnnprune.kernels.csr import Csr, csr_from_dense, csr_nbytes

WEIGHT = torch.tensor([[0.0, 1.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.25]])
BIAS = torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.csr.safetensors"


# What becomes sparse, and half precision


def test_a_matrix_becomes_sparse_exactly_when_it_shrinks() -> None:
    dense_bytes = 40 * 40 * 4
    break_even = (dense_bytes - 41 * 4) // 6
    for nnz, kind in ((break_even - 1, Csr), (break_even + 1, Tensor)):
        weight = torch.zeros(1600)
        weight[:nnz] = 1
        assert isinstance(csr_or_dense(weight.reshape(40, 40)), kind)
        assert (csr_nbytes((40, 40), nnz, 4) < dense_bytes) == (kind is Csr)
    assert isinstance(csr_or_dense(torch.zeros(500)), Tensor)
    assert isinstance(csr_or_dense(torch.zeros(50, 50, dtype=torch.int64)), Tensor)
    assert isinstance(csr_or_dense(torch.zeros(5, 50, 50)), Tensor)


def test_half_precision_is_for_matrices() -> None:
    sparse = csr_or_dense(torch.eye(64), torch.float16)
    assert isinstance(sparse, Csr)
    assert sparse.values.dtype == torch.float16
    assert csr_or_dense(torch.ones(8, 8), torch.bfloat16).dtype == torch.bfloat16
    assert csr_or_dense(torch.ones(8), torch.float16).dtype == torch.float32
    assert csr_or_dense(torch.ones(8, 8, dtype=torch.int32), torch.float16).dtype == torch.int32


def test_what_float16_cannot_hold_is_refused_by_name() -> None:
    weight = torch.tensor([[1.0, -70_000.0], [65_504.0, 0.0]])
    with pytest.raises(UsageError, match=r"^lstm\.weight_hh_l0: 70000 is beyond float16, which ends at 65504; .*bf16"):
        cast_values(weight, torch.float16, name="lstm.weight_hh_l0")
    with pytest.raises(UsageError, match=r"w: 1e\+300 is beyond float32, .*; export with --values keep$"):
        cast_values(torch.tensor([1e300], dtype=torch.float64), torch.float32, name="w")
    assert cast_values(weight, torch.bfloat16).underflowed == 0
    assert cast_values(torch.tensor([float("inf")]), torch.float16).tensor.isinf().all()


def test_what_becomes_zero_is_counted_and_not_stored(path: Path) -> None:
    weight = torch.zeros(20, 20)
    weight[3, 4], weight[5, 6], weight[7, 8] = 1e-8, -1e-9, 6e-8  # the smallest float16 is about 5.96e-8
    cast = cast_values(weight, torch.float16)
    assert cast.underflowed == 2
    stored = csr_or_dense(weight, torch.float16)
    assert isinstance(stored, Csr)
    assert stored.nnz == 1
    write_sparse(path, {"w": stored}, {}, {})
    assert int(densify(read_sparse(path))["w"].count_nonzero()) == 1


def test_the_sizes_that_the_design_promises() -> None:
    for cols, itemsize, share in ((256, 4, 0.155), (256, 2, 0.105), (1024, 4, 0.152), (1024, 2, 0.102)):
        rows = 3 * cols
        nnz = rows * cols - round(0.9 * rows * cols)
        assert csr_nbytes((rows, cols), nnz, itemsize) <= share * rows * cols * 4


# Writing what could not be read


def test_nothing_is_written_that_would_be_refused(path: Path) -> None:
    good = csr_from_dense(WEIGHT)
    zero = Csr(good.crow_indices, good.col_indices, good.values * 0, good.shape)
    with pytest.raises(InputRefused, match=r"^w: a stored value is zero"):
        write_sparse(path, {"w": zero}, {}, {})
    for tensors, aliases in (
        ({"w": good, "w.values": BIAS}, {}),
        ({"w.values": BIAS, "w": good}, {}),
        ({"w": good}, {"w": "w"}),
        ({"w": good}, {"w.values": "w"}),
    ):
        with pytest.raises(UsageError, match="two tensors would take this name"):
            write_sparse(path, tensors, aliases, {})
    with pytest.raises(UsageError, match="alias of gone"):
        write_sparse(path, {"w": good}, {"a": "gone"}, {})
    with pytest.raises(UsageError, match="has no place in a safetensors file"):
        write_sparse(path, {"w": torch.zeros(2, dtype=torch.complex128)}, {}, {})
    assert not path.exists()


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the folder first"):
        write_sparse(tmp_path / "no" / "file", {"b": BIAS}, {}, {})
