"""Which layers stay as they are and why, and which engine the others get."""

from __future__ import annotations

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

import rnnprune
from rnnprune import UsageError
from rnnprune.kernels import native
from rnnprune.runtime import choice
from rnnprune.runtime.sparsify import engines_of
from tests.runtime.twin_cases import ANY, NATIVE, assert_same, prune, truth_of


def reasons(module: nn.Module, engine: str = ANY) -> dict[str, str]:
    sparse = rnnprune.sparsify(module, engine=engine)  # type: ignore[arg-type]
    return {layer.name: layer.reason for layer in rnnprune.describe(sparse) if layer.engine == "torch-dense-fp32"}


def test_layers_that_would_not_shrink_stay_dense() -> None:
    model = nn.Sequential(nn.Linear(40, 40), prune(nn.Linear(40, 40)))
    assert reasons(model) == {"0": "0.0% zeros: sparse would be larger than dense"}
    assert engines_of(model) == "+".join(sorted([ANY, "torch-dense-fp32"]))


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_layers_that_are_more_than_they_seem_stay_dense() -> None:
    pruned, normed = prune(nn.Linear(40, 40)), prune(nn.Linear(40, 40))
    torch.nn.utils.prune.random_unstructured(pruned, "weight", 0.5)
    torch.nn.utils.parametrizations.weight_norm(normed)
    broken = prune(nn.Linear(40, 40))
    with torch.no_grad():
        broken.weight[3, 3] = torch.nan
    model = nn.Sequential(prune(Doubled(40, 40)), pruned, normed, prune(nn.Linear(40, 40)).double(), broken)
    found = reasons(model)
    assert found["0"] == "Doubled is a subclass of nn.Linear and may do more than it"
    assert "re-parametrised (weight" in found["1"]
    assert "ParametrizedLinear is a subclass" in found["2"]
    assert found["3"] == "its parameters are torch.float64 on cpu, not torch.float32 on cpu"
    assert found["4"] == "weight holds NaN or infinite values"


def test_an_attention_layer_keeps_its_linear_layers() -> None:
    model = prune(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True))
    x = torch.randn(2, 3, 16)
    truth = truth_of(model)(x)
    found = reasons(model)
    assert found["linear1"] == "TransformerEncoderLayer reads its weight directly"
    assert "subclass" in found["self_attn.out_proj"]
    with torch.inference_mode():
        assert_same(model(x), truth)


def test_forward_hooks_of_a_swapped_layer_go_on() -> None:
    layer, seen = prune(nn.GRU(8, 16)), []
    layer.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    layer.register_forward_pre_hook(lambda *_: seen.append("before"))
    rnnprune.sparsify(layer, engine=ANY)(torch.randn(2, 1, 8))
    assert seen == ["before", "SparseRecurrent"]


# Engines


def test_an_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"engine 'fast' is not known; there are auto, native, triton, reference, torch-csr"
    ):
        choice.resolve_engine("fast")
    with pytest.raises(UsageError, match="threads must be at least 1, found 0"):
        rnnprune.sparsify(nn.Linear(4, 4), threads=0)


def test_without_the_native_engine_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_REASON", "the C extension was not built")
    small, large = prune(nn.Linear(40, 40)), prune(nn.Linear(2048, 2048), 0.9)
    first, second = rnnprune.describe(rnnprune.sparsify(nn.Sequential(small, large)))
    assert first.engine == "torch-dense-fp32"
    assert "1,600 weights: torch-csr wins from 4,194,304 on; no native engine: the C extension was not" in first.reason
    assert second.engine == "torch-csr"
    assert second.reason.endswith("weights are zero; no native engine: the C extension was not built")
    with pytest.raises(UsageError, match="the native engine is unavailable: the C extension was not built"):
        rnnprune.sparsify(small, engine="native")


@pytest.mark.parametrize("engine", [NATIVE])
def test_auto_goes_by_rules(engine: str) -> None:
    model = nn.Sequential(prune(nn.LSTM(8, 16), 0.9), prune(nn.LSTM(8, 16), 0.5), prune(nn.Linear(64, 64), 0.9))
    first, second, third = rnnprune.describe(rnnprune.sparsify(model))
    assert first.engine == engine
    assert first.reason.endswith("of 1,536 weights are zero")
    assert second.engine == third.engine == "torch-dense-fp32"
    assert second.reason.endswith("% zeros: native wins from 60% on")
    assert third.reason == "4,096 weights: native wins from 262,144 on"


def test_every_rule_is_for_an_engine_that_exists() -> None:
    assert {engine for engine, _ in choice.RULES} == {"native", "torch-csr", "triton"}
    assert all(0.33 < rule.sparsity < 1 for rule in choice.RULES.values())
