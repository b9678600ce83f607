"""Legacy torch pickles: what a storage claims is held against the file before torch reserves it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rnnprune.errors import InputRefused
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.legacy import largest_storage

COUNT = 70_000  # a number of four bytes


def saved(path: Path, dtype: torch.dtype) -> bytes:
    """A legacy file, with a number beside the tensor that is no size of anything."""
    torch.save({"weight": torch.ones(COUNT, dtype=dtype), "seed": 2**62}, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_storage_as_large_as_it_says_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    saved(tmp_path / "whole.pt", dtype)
    assert largest_storage(tmp_path / "whole.pt") == COUNT
    assert read_checkpoint(tmp_path / "whole.pt").tensors["weight"].shape == (COUNT,)


@pytest.mark.parametrize("claimed", [2**24, 2**31 - 1])
def test_a_storage_larger_than_the_file_is_refused_at_once(tmp_path: Path, claimed: int) -> None:
    data = saved(tmp_path / "claims.pt", torch.float32)
    told, claims = (b"J" + number.to_bytes(4, "little") for number in (COUNT, claimed))
    assert told in data
    (tmp_path / "claims.pt").write_bytes(data.replace(told, claims))
    with pytest.raises(InputRefused, match=f"a storage of {claimed} elements in a file of {len(data)} bytes; copy or"):
        read_checkpoint(tmp_path / "claims.pt")


def test_a_broken_pickle_claims_what_came_before_the_break(tmp_path: Path) -> None:
    data = saved(tmp_path / "cut.pt", torch.float32)
    (tmp_path / "cut.pt").write_bytes(data[:60])
    assert largest_storage(tmp_path / "cut.pt") == 0
