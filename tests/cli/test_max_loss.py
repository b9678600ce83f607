"""`finetune --max-loss` from the shell: what was tried is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SIZES = ("--steps", "20", "--seq-len", "20", "--batch-size", "8", "--threads", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("finished")
def test_every_try_is_told(rnnprune: Callable[..., Any]) -> None:
    told = rnnprune("finetune", "ckpt.pt", "--max-loss", "100%", "--out", "found", *SIZES)
    assert told.code == 0, told.err
    assert "75.00%" in told.out
    assert "within 100%" in told.out
    assert "dense, trained on for " in told.out
    assert "75.00% zeros: bpc " in told.err
