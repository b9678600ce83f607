"""Shared by the tests of the examples."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No run is there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
