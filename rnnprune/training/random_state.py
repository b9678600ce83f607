"""Every random number generator that a training run may draw from, as plain data and back.

torch's (CPU and CUDA), numpy's global one, Python's, and those that a task keeps among its own attributes.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch

from rnnprune.tasks.protocol import Task


def seed_all(seed: int) -> None:
    """Seed the three global generators (numpy's takes the low 32 bits)."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state(task: Task, device: torch.device) -> dict[str, Any]:
    """The states of all generators: text, numbers, lists and dicts."""
    state: dict[str, Any] = {
        "torch": _text(torch.get_rng_state()),
        "numpy": _listed(np.random.get_state(legacy=True)),
        "python": _listed(random.getstate()),
        "task": {name: _of_generator(each) for name, each in _generators(task).items()},
    }
    if device.type == "cuda":
        state["cuda"] = _text(torch.cuda.get_rng_state(device))
    return state


def set_random_state(state: dict[str, Any], task: Task, device: torch.device) -> None:
    """Put all generators back to where `random_state` found them."""
    torch.set_rng_state(_tensor(state["torch"]))
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(_tupled(state["python"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_tensor(state["cuda"]), device)
    for name, generator in _generators(task).items():
        if name in state["task"]:
            _set_generator(generator, state["task"][name])


def _generators(task: Task) -> dict[str, Any]:
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    return {name: value for name, value in getattr(task, "__dict__", {}).items() if isinstance(value, kinds)}


def _of_generator(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return _text(generator.get_state())
    if isinstance(generator, random.Random):
        return _listed(generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return _listed(generator.get_state(legacy=True))
    return _listed(generator.bit_generator.state)


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(_tensor(state))
    elif isinstance(generator, random.Random):
        generator.setstate(_tupled(state))
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(tuple(state))
    else:
        generator.bit_generator.state = state


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _listed(value: Any) -> Any:
    """Tuples and arrays as lists, at any depth."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_listed(each) for each in value] if isinstance(value, tuple | list) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(each) for each in value) if isinstance(value, list) else value
