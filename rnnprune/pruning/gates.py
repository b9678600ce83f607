"""`--scope gate`: which rows of a recurrent matrix are which gate, told by the shapes of its whole layer."""

from __future__ import annotations

from rnnprune.architecture import GATES, Recognised, Role
from rnnprune.errors import UsageError
from rnnprune.pruning.options import Block

WHOLE = {"": slice(None)}


def gates_of(name: str, role: Role, layers: Recognised, block: Block) -> dict[str, slice]:
    """`.i` -> its rows, and so on; all rows as one for a matrix without gates.

    layers: those that the names and shapes of all parameters form, pruned or not. Raises UsageError where they do not
    tell the gates apart, and where blocks would reach from one gate into the next.
    """
    if role not in ("input", "recurrent"):
        return WHOLE
    layer = next((stack for stack in layers.stacks if name in stack.parameter_shapes()), None)
    if layer is None:
        raise UsageError(
            f"--scope gate: {name} cannot be cut into gates ({layers.problems.get(name, 'no layer that is known')}); "
            "choose --scope tensor"
        )
    gates, hidden = GATES[layer.kind], layer.hidden_size
    if len(gates) == 1:
        return WHOLE
    if hidden % block.rows:
        raise UsageError(
            f"--scope gate: a gate of {name} has {hidden} rows, which blocks of {block} do not divide; "
            "choose another --block, or --scope tensor"
        )
    return {f".{gate}": slice(place * hidden, (place + 1) * hidden) for place, gate in enumerate(gates)}
