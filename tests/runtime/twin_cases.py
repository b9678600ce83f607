"""What the tests of the runtime share: pruned layers of torch, their float64 truth, engines and the one comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnprune.kernels import native
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.runtime.sparsify import TWINS
from rnnprune.runtime.twin import Choice
from rnnprune.runtime.weights import SparseWeight

TOLERANCE = 3e-6  # of the largest value, through three layers of float32
NATIVE = pytest.param("native", marks=pytest.mark.skipif(native.unavailable_reason() is not None, reason="no C engine"))
PRODUCT_ENGINES = ["torch-csr", "scipy-csr", "reference"]
ENGINES = [NATIVE, *PRODUCT_ENGINES]
HERE = PRODUCT_ENGINES if native.unavailable_reason() else ["native", *PRODUCT_ENGINES]  # for hypothesis
ANY = HERE[0]

each_engine = pytest.mark.parametrize("engine", ENGINES)
needs_native = pytest.mark.skipif(native.unavailable_reason() is not None, reason=str(native.unavailable_reason()))


def prune(module: nn.Module, sparsity: float = 0.8, seed: int = 0) -> nn.Module:
    """Zeros in every matrix, in place; a tied matrix is cut once."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter *= torch.rand(parameter.shape, generator=generator) >= sparsity
    return module.eval()


def truth_of(module: nn.Module) -> Callable[..., Any]:
    """The dense module in float64, called with float32 arguments."""
    double = copy.deepcopy(module).double()

    def call(*arguments: Any) -> Any:
        with torch.no_grad():
            return double(*map(in_double, arguments))

    return call


def twin_of(layer: nn.Module, engine: str = ANY, threads: int = 1) -> Any:
    """The twin of one layer as it is, small or hardly pruned as it may be."""
    tensors = {
        name: SparseWeight(csr_from_dense(parameter)) if parameter is not None and parameter.ndim == 2 else parameter
        for name, parameter in layer._parameters.items()
    }
    twin = TWINS[type(layer)](layer, tensors, Choice(engine, "test", 0.0), threads)  # type: ignore[arg-type]
    return twin.eval().requires_grad_(False)


def in_double(value: Any) -> Any:
    if isinstance(value, tuple) and not isinstance(value, PackedSequence):
        return tuple(map(in_double, value))
    return None if value is None else value.to(torch.float64)


def assert_same(found: Any, truth: Any) -> None:
    """Shapes equal, values within TOLERANCE; tuples and packed sequences part by part."""
    if isinstance(truth, PackedSequence):
        assert isinstance(found, PackedSequence)
        assert torch.equal(found.batch_sizes, truth.batch_sizes)
        for name in ("sorted_indices", "unsorted_indices"):
            a, b = getattr(found, name), getattr(truth, name)
            assert (a is None and b is None) or torch.equal(a, b)
        assert_same(found.data, truth.data)
    elif isinstance(truth, tuple):
        assert isinstance(found, tuple)
        assert len(found) == len(truth)
        for a, b in zip(found, truth, strict=True):
            assert_same(a, b)
    else:
        assert isinstance(found, Tensor)
        assert found.dtype == torch.float32
        assert found.shape == truth.shape
        if truth.numel():
            assert float((found.double() - truth).abs().max()) <= TOLERANCE * max(1.0, float(truth.abs().max()))
