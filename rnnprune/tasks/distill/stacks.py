"""A bare state dict as a module: its recurrent stacks rebuilt, all other tensors kept as they are.

N examples, T time, I input, O output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rnnprune.architecture import Kind, RecurrentStack
from rnnprune.errors import InputRefused
from rnnprune.tasks.spec import RECURRENT

_CELLS: Mapping[Kind, Callable[..., nn.RNNCellBase]] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def build_stacks(tensors: Mapping[str, Tensor], stacks: Sequence[RecurrentStack]) -> nn.Module:
    """An untrained module with exactly these names and shapes: recurrent layers for the stacks, buffers for the rest.

    Raises InputRefused where one name is both a tensor and the prefix of others.
    """
    of_stacks = {name for stack in stacks for name in stack.parameter_shapes()}
    root = next((_layer(stack) for stack in stacks if not stack.prefix), nn.Module())
    try:
        for stack in stacks:
            if stack.prefix:
                parent, leaf = _parent(root, stack.prefix)
                parent.add_module(leaf, _layer(stack))
        for name, tensor in tensors.items():
            if name not in of_stacks:
                parent, leaf = _parent(root, name)
                parent.register_buffer(leaf, torch.zeros_like(tensor))
    except (KeyError, AttributeError) as error:
        raise InputRefused(f"the names of the tensors cannot belong to one module: {error}") from error
    return root


def run_stack(layer: nn.Module, x: Float[Tensor, "n t i"], *, is_cell: bool) -> Float[Tensor, "n t o"]:
    """Every step's output of a stack or a cell, from a zero state."""
    if not is_cell:
        sequence: Tensor = layer(x)[0]
        return sequence
    state, outputs = None, []
    for step in x.unbind(1):
        state = layer(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1)


def _layer(stack: RecurrentStack) -> nn.Module:
    if stack.is_cell:
        return _CELLS[stack.kind](stack.input_size, stack.hidden_size, bias=stack.bias)
    projection = {"proj_size": stack.proj_size} if stack.proj_size else {}
    return RECURRENT[stack.kind](
        stack.input_size,
        stack.hidden_size,
        stack.num_layers,
        bias=stack.bias,
        batch_first=True,
        bidirectional=stack.bidirectional,
        **projection,
    )


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds `name`, made where it is missing, and the last part of the name."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root, leaf
