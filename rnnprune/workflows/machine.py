"""The machine a command runs on: threads, device, and how to describe it beside a figure."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from rnnprune import __version__
from rnnprune.errors import UsageError
from rnnprune.training.recipe import Precision


def set_threads(threads: int | None) -> int:
    """Use this many CPU threads (torch's own choice when None) and say how many."""
    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads must be at least 1, found {threads}")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def find_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:N`. UsageError when there is no such device here."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name, re.ASCII):
        raise UsageError(f"--device {name}: no such device; use cpu or cuda")
    if name != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA device here; use --device cpu")
    return torch.device(name)


def require_precision(precision: Precision, device: str) -> None:
    """UsageError for fp16 on the CPU, where torch has it for some layers and not for others, LSTM among them."""
    if precision == "fp16" and not device.startswith("cuda"):
        raise UsageError(
            f"--precision fp16 needs --device cuda, found {device}; use bf16 there, which torch has for all"
        )


def describe_machine() -> dict[str, Any]:
    """What a reader needs to judge a timing."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions(),
    }


def versions() -> dict[str, str]:
    """The versions that shape a result."""
    return {"rnnprune": __version__, "torch": torch.__version__}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
