"""The whole state of a training run as a snapshot, and back: never a pickle, only tensors and plain data.

Tensors: `model/NAME`, `optimizer/INDEX/NAME` as torch numbers its parameters, `mask/NAME` as packed bits (uint8, row by
row, the highest bit first), `moment/NAME` where the pruner keeps what the optimizer does not. The document holds the
rest, each process's position with its random numbers among it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnprune.formats.state_folder import Snapshot
from rnnprune.pruning.pruner import Pruner
from rnnprune.training.position import Position
from rnnprune.training.workers import ALONE, Workers


@dataclass(frozen=True)
class RunState:
    """The parts of a run that change while it goes on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    position: Position
    pruner: Pruner | None = None
    workers: Workers = ALONE

    def take(self) -> Snapshot:
        """The state between two steps; every process has to call it. The tensors are views of the live ones."""
        tensors = {f"model/{name}": tensor for name, tensor in _tensors(self.model.state_dict()).items()}
        plain: dict[str, Any] = {}
        for index, state in self.optimizer.state_dict()["state"].items():
            held = _tensors(state)
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in held.items()}
            plain[str(index)] = {name: value for name, value in state.items() if name not in held}
        document = {
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "optimizer": plain,
            "positions": self.workers.gather(self.position.to_plain()),
        }
        if self.pruner is not None:
            state = self.pruner.state_dict()
            tensors |= {f"mask/{name}": pack_bits(mask) for name, mask in state["masks"].items()}
            tensors |= {f"moment/{name}": moment for name, moment in state["second_moments"].items()}
            document["pruner"] = {"step": state["step"], "quantiles": state["quantiles"]}
        return Snapshot(tensors, document)

    def put_back(self, snapshot: Snapshot) -> None:
        """Make everything as it was when `snapshot` was taken, of the same model, optimizer and pruner."""
        document, tensors = snapshot.document, snapshot.tensors
        self.model.load_state_dict(_under("model/", tensors), strict=True)
        state: dict[int, dict[str, Any]] = {int(index): dict(plain) for index, plain in document["optimizer"].items()}
        for name, tensor in _under("optimizer/", tensors).items():
            index, _, key = name.partition("/")
            state[int(index)][key] = tensor.clone()
        groups = [{**group, "lr": document["learning_rate"]} for group in self.optimizer.state_dict()["param_groups"]]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.pruner is not None:
            packed = _under("mask/", tensors)
            masks = {name: unpack_bits(packed[name], mask) for name, mask in self.pruner.masks.items()}
            moments = _under("moment/", tensors)
            self.pruner.load_state_dict({**document["pruner"], "masks": masks, "second_moments": moments})
        positions = document["positions"]
        self.position.go_on_from(positions[self.workers.rank % len(positions)])


def pack_bits(mask: Tensor) -> Tensor:
    """bool of any shape -> uint8 [ceil(count / 8)]."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_bits(bits: Tensor, like: Tensor) -> Tensor:
    """uint8 [ceil(count / 8)] -> bool in the shape of `like`."""
    count = math.prod(like.shape)
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(bool)).reshape(like.shape)


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}


def _under(prefix: str, tensors: Any) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
