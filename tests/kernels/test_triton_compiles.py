"""The kernels become machine code of an H100, although there is none here: what the interpreter lets pass, the compiler
may refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rnnprune.kernels import triton_engine

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(triton_engine.triton_version() is None, reason="triton is not installed")
def test_every_kernel_compiles_for_an_h100_without_spills(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.triton_dry_run"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    kernels = [json.loads(line) for line in run.stdout.splitlines()]
    assert Counter(each["kernel"] for each in kernels) >= Counter(
        {"gru_step": 4, "lstm_step": 4, "rnn_step": 3, "product": 3}
    )
    assert all(each["cubin"] > 0 for each in kernels)
    assert [each for each in kernels if each["spills"]] == []
    single = [each for each in kernels if each["constants"]["B"] == 1]
    assert all(each["vector_loads"] for each in single if each["constants"]["K"] >= 128), "16 bytes at once"
