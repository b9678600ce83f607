"""Changed files by the thousand, each refused in one sentence or read as an independent reader reads it."""

from __future__ import annotations

import ast
import contextlib
import inspect
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from rnnprune.errors import InputRefused, UsageError
from rnnprune.formats.checkpoint import Checkpoint, read_checkpoint
from rnnprune.formats.sparse import SparseFile, is_sparse_file, read_sparse
from rnnprune.runtime.sparsify import sparsify
from tests.fuzz import checker
from tests.fuzz.bases import bases, model
from tests.fuzz.judge import Fault, judge
from tests.fuzz.mutate import Victim, victim

SPARSE = [name for name, base in bases().items() if base.kind == "sparse"]


@pytest.mark.slow
def test_a_hundred_thousand_files() -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", "--count", "100000", "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    print(ended.stdout)


def test_the_first_hundred_of_them(tmp_path: Path) -> None:
    accepted = [judge(_written(tmp_path / "victim", made.data), made) for made in map(victim, range(100))]
    assert 10 < sum(accepted) < 50, "a fuzzer whose files are nearly all refused, or all accepted, looks at little"


@pytest.mark.slow
def test_a_number_gives_the_same_file_in_every_process() -> None:
    """Else a seed that is told with a failure would be worth nothing."""
    code = "import zlib; from tests.fuzz.mutate import victim; print([zlib.crc32(victim(n).data) for n in range(200)])"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True).stdout
    assert said == f"{[zlib.crc32(victim(seed).data) for seed in range(200)]}\n"


def test_the_checker_is_a_stranger_to_what_it_checks() -> None:
    tree = ast.parse(inspect.getsource(checker))
    imports = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imports += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name.partition(".")[0] for name in imports} == {
        *("__future__", "json", "math", "struct", "collections", "typing", "numpy", "scipy")
    }


@pytest.mark.parametrize("name", bases())
def test_every_whole_file_is_accepted(tmp_path: Path, name: str) -> None:
    assert judge(_written(tmp_path / "whole", bases()[name].data), Victim(name, bases()[name].data))


@pytest.mark.parametrize("blind", ["csr_problem", "bitmask_problem", "_descriptor_problem", "check_aliases"])
def test_a_reader_that_forgets_a_rule_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: str) -> None:
    """The judge itself: with one check taken out of the reader, some of these files must be told as faults."""
    place = {"check_aliases": "sparse", "bitmask_problem": "bitmask"}.get(blind, "forms")
    monkeypatch.setattr(
        f"rnnprune.formats.{place}.{blind}", lambda *args: args[1] if blind == "check_aliases" else None
    )
    faults = 0
    for seed in range(1000):
        made = victim(seed)
        if made.base.startswith("bitmask" if blind == "bitmask_problem" else "csr"):
            try:
                judge(_written(tmp_path / "victim", made.data), made, everything=False)
            except (Fault, ValueError, IndexError, AttributeError, TypeError, RuntimeError):
                faults += 1
    assert faults > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lm bsr int8", "lm bitmask int8", "csr fp16", "lm dense", "zip nested", "legacy nested", "npz deflated"]
)
def test_a_file_cut_at_any_length_is_refused(tmp_path: Path, name: str) -> None:
    data = bases()[name].data
    for length in range(min(len(data), 4096)):
        path = _written(tmp_path / "cut", data[:length])
        with pytest.raises(InputRefused):
            _read(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csr", "lm bitmask int8", "lm bsr int8", "bsr 8x4 bf16", "lm dense", "zip", "npz"])
def test_a_flipped_bit_is_refused_or_changes_values_alone(tmp_path: Path, name: str) -> None:
    """2,500 of each; what becomes another shape all the same fits no model. A sparse file carries no checksum."""
    data = bytearray(bases()[name].data)
    path = _written(tmp_path / "victim", bytes(data))
    whole = _shapes(_read(path))
    for place in np.random.default_rng(0).permutation(8 * len(data))[:2500]:
        data[place // 8] ^= 1 << place % 8
        with contextlib.suppress(InputRefused):
            if _shapes(_read(_written(path, bytes(data)))) != whole:  # a column more in a shape, say
                with pytest.raises(UsageError, match="does not fit the module"):
                    sparsify(model(name), path)
        data[place // 8] ^= 1 << place % 8


def _written(path: Path, data: bytes) -> Path:
    path.unlink(missing_ok=True)  # a mapped file that is cut under its reader is a bus error
    path.write_bytes(data)
    return path


def _read(path: Path) -> SparseFile | Checkpoint:
    return read_sparse(path) if is_sparse_file(path) else read_checkpoint(path)


def _shapes(found: SparseFile | Checkpoint) -> list[str]:
    return sorted(
        f"{list(item.shape)} {item.dtype if hasattr(item, 'dtype') else ''}" for item in found.tensors.values()
    )
