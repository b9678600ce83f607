"""Every engine's product against a float64 dense product, on shapes that break loops."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from rnnprune.kernels import reference, scipy_csr, torch_csr
from rnnprune.kernels.api import Engine
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.torch_csr import packed_nbytes

ENGINES = [reference.ENGINE, torch_csr.ENGINE, scipy_csr.ENGINE]
SPARSE = [torch_csr.ENGINE, scipy_csr.ENGINE]


def scattered(rows: int, cols: int, density: float) -> Tensor:
    generator = torch.Generator().manual_seed(rows * cols)
    keep = torch.rand(rows, cols, generator=generator) < density
    return torch.randn(rows, cols, generator=generator, dtype=torch.float64) * keep


def with_empty_rows() -> Tensor:
    weight = scattered(9, 14, 0.3)
    weight[0] = weight[4] = weight[8] = 0.0
    return weight


def one_full_row(rows: int, cols: int) -> Tensor:
    weight = torch.zeros(rows, cols, dtype=torch.float64)
    weight[rows // 2] = torch.linspace(-1, 1, cols, dtype=torch.float64) + 1e-3
    return weight


MATRICES = {
    "1x1": torch.full((1, 1), 2.5, dtype=torch.float64),
    "1x1 zero": torch.zeros(1, 1, dtype=torch.float64),
    "7x96": scattered(7, 96, 0.1),
    "96x7": scattered(96, 7, 0.1),
    "empty rows": with_empty_rows(),
    "all zero": torch.zeros(5, 9, dtype=torch.float64),
    "one full row": one_full_row(6, 33),
    "nothing pruned": scattered(8, 8, 2.0),
    "65,536 columns": scattered(3, 65_536, 0.01),
    "65,537 columns": one_full_row(3, 65_537),
}
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
each_matrix = pytest.mark.parametrize("weight", MATRICES.values(), ids=MATRICES.keys())


@each_engine
@each_matrix
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_product_is_that_of_the_dense_matrix(engine: Engine, weight: Tensor, batch: int) -> None:
    x = torch.randn(weight.shape[1], batch, dtype=torch.float64)
    product = engine.pack(csr_from_dense(weight))(x)
    assert product.shape == (weight.shape[0], batch)
    assert product.dtype == torch.float64
    torch.testing.assert_close(product, weight @ x, rtol=1e-12, atol=1e-10)


@each_engine
@each_matrix
def test_float32_stays_float32_and_close(engine: Engine, weight: Tensor) -> None:
    x = torch.randn(weight.shape[1], 3)
    product = engine.pack(csr_from_dense(weight.float()))(x)
    assert product.dtype == torch.float32
    expected = weight.float().double() @ x.double()
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(product.double() / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", SPARSE, ids=lambda engine: engine.name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_values_multiply_as_float32(engine: Engine, dtype: torch.dtype) -> None:
    weight = scattered(7, 96, 0.2).to(dtype)
    x = torch.randn(96, 4)
    product = engine.pack(csr_from_dense(weight))(x)
    assert product.dtype == torch.float32
    torch.testing.assert_close(product.double(), weight.double() @ x.double(), rtol=0, atol=1e-5)


@each_engine
def test_a_transposed_view_is_no_trap(engine: Engine) -> None:
    """Sequences arrive as [B, features] in memory; the product must not read them in the wrong order."""
    weight = scattered(6, 10, 0.5)
    rows = torch.randn(4, 10, dtype=torch.float64)
    product = engine.pack(csr_from_dense(weight))(rows.T)
    torch.testing.assert_close(product, weight @ rows.T, rtol=0, atol=1e-12)


@each_engine
def test_a_packed_matrix_can_be_used_again_and_does_not_follow_its_source(engine: Engine) -> None:
    weight = scattered(4, 4, 0.6)
    x, kept = torch.randn(4, 2, dtype=torch.float64), weight.clone()
    product = engine.pack(csr_from_dense(weight))
    weight.zero_()
    torch.testing.assert_close(product(x), kept @ x, rtol=0, atol=1e-12)
    torch.testing.assert_close(product(2 * x), 2 * (kept @ x), rtol=0, atol=1e-12)


def test_engine_names_are_those_of_the_contract() -> None:
    assert [engine.name for engine in ENGINES] == ["reference", "torch-csr", "scipy-csr"]


def test_packed_bytes_are_those_of_an_int32_csr_in_float32() -> None:
    """As scipy holds it: int32 pointers and indices, float32 values."""
    weight = scattered(31, 50, 0.1).float()
    held = scipy.sparse.csr_array(weight.numpy())
    assert held.indices.dtype == np.int32
    assert packed_nbytes((31, 50), held.nnz) == held.data.nbytes + held.indices.nbytes + held.indptr.nbytes
