"""A saved state that was cut short or changed by a single bit: the manifest finds every one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rnnprune.errors import InputRefused
from rnnprune.formats.state_folder import Snapshot, StateFolder

FLIPS = 10_000


def saved(path: Path) -> tuple[StateFolder, Path, Path]:
    """One state of about 4 KB, its tensors and its manifest."""
    folder = StateFolder(path / "state")
    tensors = {"model/w": torch.arange(900.0), "mask/w": torch.arange(113, dtype=torch.uint8)}
    folder.save(Snapshot(tensors, {"step": 7, "learning_rate": 0.1, "positions": [{"epoch": 1}]}))
    found = folder.load()
    assert found is not None
    assert torch.equal(found.tensors["model/w"], tensors["model/w"])
    return folder, folder.path / "000001.safetensors", folder.path / "000001.json"


def put(path: Path, content: bytes | bytearray) -> None:
    path.unlink()  # to write over a file makes some file systems wait for the disk
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["tensors", "manifest"])
def test_a_state_cut_at_any_length_is_refused(tmp_path: Path, role: str) -> None:
    folder, tensors, manifest = saved(tmp_path)
    path = tensors if role == "tensors" else manifest
    whole = path.read_bytes()
    for length in range(len(whole)):
        put(path, whole[:length])
        with pytest.raises(InputRefused, match=r"state: no saved state is whole \(000001\.\w+: "):
            folder.load()


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    folder, tensors, manifest = saved(tmp_path)
    contents = {path: bytearray(path.read_bytes()) for path in (tensors, manifest)}
    places = [(path, bit) for path, content in contents.items() for bit in range(8 * len(content))]
    for number in np.random.default_rng(0).permutation(len(places))[:FLIPS]:
        path, bit = places[number]
        content = contents[path]
        content[bit // 8] ^= 1 << bit % 8
        put(path, content)
        with pytest.raises(InputRefused, match="no saved state is whole"):
            folder.load()
        content[bit // 8] ^= 1 << bit % 8
        put(path, content)


def test_a_pointer_cut_or_flipped_leaves_the_state_that_it_named(tmp_path: Path) -> None:
    folder, _, _ = saved(tmp_path)
    pointer = folder.path / "latest"
    whole = pointer.read_bytes()
    number = int.from_bytes(whole, "little")
    flipped = [(number ^ 1 << bit).to_bytes(len(whole), "little") for bit in range(8 * len(whole))]
    for content in [*(whole[:length] for length in range(len(whole))), *flipped]:
        put(pointer, content)
        found = folder.load()
        assert found is not None
        assert found.document["step"] == 7
