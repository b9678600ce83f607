"""Bare state dicts of every layout: recognised, rebuilt, and run against the torch modules that they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rnnprune.tasks.distill.stacks import build_stacks, run_stack
from rnnprune.workflows.subject import fill_model, open_subject

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: nn.RNN(5, 6, batch_first=True),
    "gru-2": lambda: nn.GRU(5, 6, 2, batch_first=True),
    "lstm-bi": lambda: nn.LSTM(5, 6, bidirectional=True, batch_first=True),
    "lstm-bi-3": lambda: nn.LSTM(5, 6, 3, bidirectional=True, batch_first=True),
    "gru-nobias": lambda: nn.GRU(5, 6, bias=False, batch_first=True),
    "lstm-proj": lambda: nn.LSTM(5, 8, 2, proj_size=3, batch_first=True),
    "rnn-cell": lambda: nn.RNNCell(5, 6),
    "gru-cell": lambda: nn.GRUCell(5, 6),
    "lstm-cell": lambda: nn.LSTMCell(5, 6, bias=False),
}
State = Mapping[str, Tensor]


def masked(state: State) -> dict[str, Tensor]:
    """As torch.nn.utils.prune leaves it; the masks are all ones, so the answers are the dense ones."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found |= (
            {f"{name}_orig": tensor, f"{name}_mask": torch.ones_like(tensor)} if tensor.ndim == 2 else {name: tensor}
        )
    return found


def pickled(tree: Any, path: Path) -> Path:
    torch.save(tree, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def legacy(tree: Any, path: Path) -> Path:
    torch.save(tree, path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


def safe(state: State, path: Path) -> Path:
    save_file(dict(state), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def zipped(state: State, path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), **{name: tensor.numpy() for name, tensor in state.items()})
    return path.with_suffix(".npz")


def prefixed(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def beside_others(state: State) -> dict[str, Tensor]:
    others = {"embed.weight": torch.randn(9, 5), "norm.num_batches_tracked": torch.tensor(3), "out.bias": torch.ones(2)}
    return prefixed("net.0.", state) | others | prefixed("other.", nn.GRU(3, 4).state_dict())


LAYOUTS: dict[str, tuple[str, Callable[[State, Path], Path]]] = {  # where the stack is found, and how it is written
    "bare": ("", pickled),
    "legacy": ("", legacy),
    "safetensors": ("", safe),
    "npz": ("", zipped),
    "state_dict": ("rnn", lambda s, p: pickled({"state_dict": prefixed("rnn.", s), "epoch": 3}, p)),
    "model+optimizer": ("", lambda s, p: pickled({"model": dict(s), "optimizer": {"state": {}, "lr": 0.1}}, p)),
    "deep": ("m.rnn", lambda s, p: pickled({"a": {"b": {"net": prefixed("m.rnn.", s)}}, "step": 1}, p)),
    "ddp": ("enc", lambda s, p: pickled(prefixed("module.enc.", s), p)),
    "compiled": ("enc", lambda s, p: safe(prefixed("_orig_mod.enc.", s), p)),
    "ddp+compiled": ("x", lambda s, p: legacy({"model": prefixed("module._orig_mod.x.", s)}, p)),
    "several": ("net.0", lambda s, p: pickled(beside_others(s), p)),
    "several.npz": ("net.0", lambda s, p: zipped(beside_others(s), p)),
    "masked": ("r", lambda s, p: pickled(masked(prefixed("r.", s)), p)),
    "fp16": ("r", lambda s, p: pickled({n: t.half() for n, t in prefixed("r.", s).items()}, p)),
    "bf16": ("r", lambda s, p: safe({n: t.bfloat16() for n, t in prefixed("r.", s).items()}, p)),
    "fp64": ("r", lambda s, p: zipped({n: t.double() for n, t in prefixed("r.", s).items()}, p)),
}


def outputs(layer: nn.Module, x: Tensor) -> Tensor:
    if not isinstance(layer, nn.RNNCellBase):
        return layer(x)[0]
    state, steps = None, []
    for step in x.unbind(1):
        state = layer(step, state)
        steps.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(steps, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_rebuilt_stack_computes_what_the_layer_did(tmp_path: Path, kind: str, layout: str) -> None:
    layer, (prefix, write) = LAYERS[kind](), LAYOUTS[layout]
    subject = open_subject(write(layer.state_dict(), tmp_path / "checkpoint"))
    (stack,) = (stack for stack in subject.stacks if stack.prefix == prefix)
    module = build_stacks(subject.checkpoint.state_dict(), subject.stacks)
    fill_model(module, subject)
    x = torch.randn(2, 4, 5)
    tolerance = {"fp16": 2e-3, "bf16": 2e-2}.get(layout, 1e-6)
    found = run_stack(module.get_submodule(prefix), x, is_cell=stack.is_cell)
    torch.testing.assert_close(found, outputs(layer, x), atol=tolerance, rtol=0)
