"""torch's dynamic int8 of a whole model: what it swaps, what it leaves, what it would store."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.runtime.int8 import quantize, stored_bytes
from rnnprune.runtime.sparsify import describe, engines_of

INT8 = "torch-dense-int8"


class Model(nn.Module):
    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.embedding, self.recurrent, self.output = nn.Embedding(5, 16), recurrent, nn.Linear(32, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.output(self.recurrent(self.embedding(tokens))[0])
        return answer


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_it_answers_as_torchs_own_call_does(kind: type[nn.Module]) -> None:
    model = Model(kind(16, 32, batch_first=True))
    theirs = torch.ao.quantization.quantize_dynamic(model.eval(), {kind, nn.Linear}, dtype=torch.qint8)
    tokens = torch.randint(5, (3, 7))
    ours = quantize(model)
    assert torch.equal(ours(tokens), theirs(tokens))
    assert engines_of(ours) == INT8
    assert {layer.name for layer in describe(ours)} == {"recurrent", "output"}
    assert type(model.recurrent) is kind, "the model itself stays as it was"


def test_it_stores_a_byte_for_a_weight_and_floats_for_the_rest() -> None:
    model = Model(nn.LSTM(16, 32))
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n)
    floats = 4 * (sum(p.numel() for p in model.parameters()) - matrices)
    written = io.BytesIO()
    torch.save(quantize(model).state_dict(), written)
    assert matrices + floats < stored_bytes(quantize(model)) == len(written.getvalue()) < matrices + floats + 8000


def test_layers_that_torch_leaves_are_told_of() -> None:
    mixed = {layer.layer: (layer.engine, layer.reason) for layer in describe(quantize(Model(nn.RNN(16, 32))))}
    assert mixed["RNN"] == ("torch-dense-fp32", "torch has no dynamic int8 RNN like this")
    assert mixed["Linear"][0] == INT8
    with pytest.raises(UsageError, match="torch has no dynamic int8 RNN"):
        quantize(nn.Sequential(nn.RNN(3, 4)))
    with pytest.raises(UsageError, match="of this model"):
        quantize(nn.Sequential(nn.Conv1d(1, 1, 1)))
