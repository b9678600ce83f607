"""Shared by all tests: one thread and one seed, so that a failure repeats itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():  # before triton is imported: its kernels then run in the interpreter, on the CPU
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("rnnprune", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("rnnprune")


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)
