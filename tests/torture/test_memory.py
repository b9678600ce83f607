"""Report and export of a checkpoint of 2 GB: resident memory is bounded by its largest tensor, not by the file."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

LAYERS = {"a": (2048, 2048), "b": (4096, 2048), "c": (4096, 4096), "d": (5120, 6144)}  # hidden and input of an LSTM
LARGEST = 4 * 4 * 5120 * 6144
BOUND = 1.3 * LARGEST + 500e6
CHILD = """
import re
from pathlib import Path
from rnnprune.cli import main
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    Path("peak").write_text(peak)
"""
COMMANDS = (
    ("w.pt", "report"),
    ("w.pt", "export --format csr"),
    ("w.pt", "export --format bsr --values int8"),
    ("w.pt", "export --format bitmask --values int8"),
    ("w.pt", "export --format dense"),
    ("w.safetensors", "report"),
    ("w.safetensors", "export --format csr --values fp16"),
    ("w.csr", "report"),
    ("w.csr", "export --format dense"),
)


def weights() -> dict[str, Tensor]:
    """Eight matrices, 90 % zeros; those of `a` in blocks of 16x1."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, (hidden, inputs) in LAYERS.items():
        for matrix, cols in (("weight_ih_l0", inputs), ("weight_hh_l0", hidden)):
            high = 16 if name == "a" else 1
            kept = torch.rand(4 * hidden // high, cols, generator=generator) < 0.1
            state[f"{name}.{matrix}"] = torch.randn(4 * hidden, cols, generator=generator).mul_(
                kept.repeat_interleave(high, 0)
            )
        for bias in ("bias_ih_l0", "bias_hh_l0"):
            state[f"{name}.{bias}"] = torch.randn(4 * hidden, generator=generator)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, state = tmp_path_factory.mktemp("large"), weights()
    torch.save(state, folder / "w.pt")
    save_file(state, folder / "w.safetensors")
    export = [sys.executable, "-m", "rnnprune", "export", "w.pt", "--out", "w.csr"]
    subprocess.run(export, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.torture
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_memory_is_bounded_by_the_largest_tensor(folder: Path, name: str, command: str) -> None:
    verb, *options = command.split()
    out = ["--out", "out", "--overwrite"] if verb == "export" else []
    start, anonymous, before = time.monotonic(), 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, verb, name, *options, *out],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while child.poll() is None:
            found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
            anonymous = max(anonymous, 1024 * int(found[1])) if found else anonymous
            time.sleep(0.005)
        seconds, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert child.returncode == 0, child.communicate()[1]
    peak = 1024 * int((folder / "peak").read_text())
    print(
        f"\n{command} of {name}, {(folder / name).stat().st_size / 1e9:.2f} GB: peak {peak / 1e6:.0f} MB (anonymous "
        f"{anonymous / 1e6:.0f}), bound {BOUND / 1e6:.0f}; {seconds:.1f} s "
        f"({used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime:.1f} s of processor time), a plain copy "
        f"{copied(folder / name):.1f} s"
    )
    assert peak <= BOUND


def copied(path: Path) -> float:
    """Seconds that a copy takes until it is on the disk."""
    start = time.monotonic()
    shutil.copyfile(path, path.with_name("copy"))
    with path.with_name("copy").open("rb") as file:
        os.fsync(file.fileno())
    return time.monotonic() - start
