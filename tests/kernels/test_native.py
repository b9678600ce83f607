"""Products and activations of the native engine against float64, over awkward shapes."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnprune.errors import UsageError
from rnnprune.kernels import native
from rnnprune.kernels.csr import Csr, csr_from_dense

if native.unavailable_reason() is not None:
    pytest.skip(native.unavailable_reason(), allow_module_level=True)

from rnnprune.kernels import _native
from tests.kernels.native_cases import BLOCKS, UNSTRUCTURED, assert_product, sparse_weight

ISAS = native.instruction_sets()
batches = st.one_of(st.none(), st.integers(0, 70))
dims = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 96, 127, 200]))


def operand(cols: int, batch: int | None, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(cols, *(() if batch is None else (batch,)), generator=generator)


@settings(max_examples=300, deadline=None)
@given(
    rows=dims, cols=dims, density=st.sampled_from([0.0, 0.03, 0.1, 0.5, 1.0]), batch=batches, threads=st.integers(1, 4),
    layout=st.sampled_from(UNSTRUCTURED), isa=st.sampled_from(ISAS), seed=st.integers(0, 9),
)  # fmt: skip
def test_unstructured_product(*, rows, cols, density, batch, threads, layout, isa, seed):
    weight, x = sparse_weight(rows, cols, density, seed), operand(cols, batch, seed)
    y = native.product(native.pack(csr_from_dense(weight), layout, threads, isa), x)
    assert_product(y, weight, x)


@settings(max_examples=300, deadline=None)
@given(
    rows=dims, cols=dims.map(lambda n: n + 3), density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), batch=batches,
    threads=st.integers(1, 4), layout=st.sampled_from(BLOCKS), isa=st.sampled_from(ISAS), seed=st.integers(0, 9),
)  # fmt: skip
def test_block_product(*, rows, cols, density, batch, threads, layout, isa, seed):
    weight, x = sparse_weight(rows, cols, density, seed), operand(cols, batch, seed)
    y = native.product(native.pack(csr_from_dense(weight), layout, threads, isa), x)
    if not layout.endswith("int8"):
        assert_product(y, weight, x)
        return
    half_a_step = weight.abs().amax(1).double() / 127 * 0.501  # the most that rounding to int8 changes a value
    bound = half_a_step.view(-1, *[1] * (x.ndim - 1)) * ((weight != 0).double() @ x.double().abs())
    assert ((y - weight.double() @ x.double()).abs() <= bound + 1e-5).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cols", [65_535, 65_536, 65_537])
@pytest.mark.parametrize("batch", [None, 3, 16])
def test_columns_around_uint16(isa, cols, batch):
    weight = torch.zeros(9, cols)
    weight[0, [0, cols - 1]] = torch.tensor([2.0, 3.0])
    weight[8, cols - 65_535 : cols : 977] = 1.5
    x = operand(cols, batch, 0)
    for layout in UNSTRUCTURED:
        assert_product(native.product(native.pack(csr_from_dense(weight), layout, isa=isa), x), weight, x)


@pytest.mark.parametrize("cols", [70, 640])
def test_rows_that_begin_far_apart(cols):
    """A window of x serves 16 rows at once: those that hold the others up go to its remainder."""
    weight, x = sparse_weight(5000, cols, 0.1, 0), operand(cols, None, 0)
    begin = torch.arange(5000).remainder(16).mul(cols // 16).unsqueeze(1)
    weight *= (torch.arange(cols) >= begin) & (torch.arange(cols) < begin + 40)
    assert_product(native.product(native.pack(csr_from_dense(weight)), x), weight, x)


@pytest.mark.parametrize("layout", ["sell8", "8x4"])
def test_nan_reaches_only_its_rows(layout):
    weight = torch.zeros(16, 16)
    weight[0, 5], weight[9, 8] = 1.0, 2.0
    x = torch.ones(16)
    x[5] = float("nan")
    y = native.product(native.pack(csr_from_dense(weight), layout), x)
    assert y.isnan().nonzero().flatten().tolist()[0] == 0
    assert y[9] == 2.0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_activation_error(isa, name):
    x = torch.cat([torch.linspace(-87, 87, 2_000_001), torch.logspace(-30, 0, 1001), torch.tensor([0.0])])
    y = torch.empty_like(x)
    _native.activate(isa, name, *native.array(x), *native.array(y))
    truth = getattr(torch, name)(x.double())
    assert ((y - truth).abs() <= 4 * 2.0**-23 * truth.abs()).all()  # 4 units in the last place
    assert y.abs().max() <= 1


@pytest.mark.parametrize("isa", ISAS)
def test_activations_keep_nan_and_limits(isa):
    x = torch.tensor([float("nan"), float("inf"), float("-inf")] * 5)
    for name in ("tanh", "sigmoid"):
        y = torch.empty_like(x)
        _native.activate(isa, name, *native.array(x), *native.array(y))
        assert torch.allclose(y, getattr(torch, name)(x), equal_nan=True, atol=1e-37)


def test_malformed_csr_is_refused():
    def csr(crow, col, cols=4):
        crow_indices, col_indices = (torch.tensor(indices, dtype=torch.int32) for indices in (crow, col))
        return Csr(crow_indices, col_indices, torch.ones(len(col)), (2, cols))

    for bad in (
        csr([0, 1, 1], [4]), csr([0, 1, 1], [-1]), csr([0, 2, 1], [0]), csr([1, 1, 1], [0]), csr([0, 0, 2], [0]),
        csr([0, 2, 2], [1, 1]), csr([0, 2, 2], [2, 1]), csr([0, 1], [0]), csr([0, -1, 1], [0]),
    ):  # fmt: skip
        for layout in native.LAYOUTS:
            if layout == "window" and "avx512" not in ISAS:
                continue
            with pytest.raises(ValueError, match="malformed CSR"):
                native.pack(bad, layout)


def test_lengths_are_checked_in_c():
    packed = native.pack(csr_from_dense(torch.eye(8)), "sell8")
    x, y = torch.ones(8), torch.ones(8)
    both = (*native.array(x), *native.array(y))
    for args in ((1, x.data_ptr(), 7, *native.array(y)), (1, *native.array(x), 0, 8), (9, *both)):
        with pytest.raises(ValueError, match=r"shorter|out of range"):
            _native.product_run(packed.handle(1), native.pool(1), *args)
    with pytest.raises(ValueError, match="out of range"):
        _native.product_run(packed.handle(1), native.pool(2), 1, *native.array(x), *native.array(y))


def test_wrong_calls_say_so():
    csr = csr_from_dense(torch.eye(8))
    with pytest.raises(UsageError, match="expected auto or one of"):
        native.pack(csr, "ellpack")
    with pytest.raises(UsageError, match="expected float32"):
        native.product(native.pack(csr), torch.ones(8, dtype=torch.float64))
    with pytest.raises(UsageError, match="window"):
        native.pack(csr, "window", isa="baseline")


def test_a_forked_child_has_its_own_team():
    packed, x = native.pack(csr_from_dense(torch.eye(64)), "sell8", threads=2), torch.arange(64.0)
    native.product(packed, x)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(native.product(packed, x), x) else 1)
    assert os.waitpid(child, 0)[1] == 0
