"""What the tests of the tasks share: small texts."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """2000 characters drawn from ten."""
    path = tmp_path / "letters.txt"
    path.write_text("".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 2000)), encoding="utf-8")
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """300 lines of four words drawn from twenty."""
    path = tmp_path / "words.txt"
    drawn = np.random.default_rng(0).choice([f"w{i}" for i in range(20)], (300, 4))
    path.write_text("".join(" ".join(line) + "\n" for line in drawn), encoding="utf-8")
    return path
