"""What a run keeps of where it stands, and what in a task is not its own to keep."""

from __future__ import annotations

import json

import pytest
import torch
from loop_cases import Echo

from rnnprune.training.position import Position
from rnnprune.training.recipe import Recipe


class Carries(Echo):
    def __init__(self, carried: object) -> None:
        self.carried = carried


@pytest.mark.parametrize("own", [(torch.ones(2),), "luggage", [1, 2]], ids=["tensors", "text", "list"])
def test_what_a_users_task_calls_carried_is_left_alone(own: object) -> None:
    task = Carries(own)
    position = Position(task, Recipe(), torch.device("cpu"))
    position.skip("the loss is nan")
    plain = json.loads(json.dumps(position.to_plain()))
    Position(task, Recipe(), torch.device("cpu")).go_on_from(plain)
    assert task.carried is own
