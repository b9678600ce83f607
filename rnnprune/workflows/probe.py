"""What this machine allows: a probe of about a second, in plain torch, so that a benchmark can say how near it runs.

    loads      vector loads of 32 bytes per second and core, also the rate of single floats: from a matrix product that
               stays in cache, since processors load as many vectors per cycle as they multiply and add
    bandwidth  bytes per second and core that a dot product reads from the second-level cache, the last-level cache
               and memory; memory with all threads at once

A dot product does not reach the last tenth of what a cache can give, and a virtual machine may own only a part of the
last-level cache. A row may therefore run at 1.1 of its bound; one at 0.3 has something else to fix.
"""

from __future__ import annotations

import functools
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from rnnprune.workflows.timing import fastest

SECONDS = 0.06  # for each figure
GEMM_SIZE = 256  # three matrices of 256 kB
VECTOR_BYTES = 32
MOST_LOADS_PER_CYCLE = 3.0  # more than this at the nominal clock: the vectors were 64 bytes wide
USUAL_CACHES = (32 * 1024, 1024 * 1024, 32 * 1024 * 1024)
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Level:
    """A place that weights come from; `nbytes`: what one core finds there; `bandwidth`: bytes per second and core."""

    name: str
    nbytes: float
    bandwidth: float


@dataclass(frozen=True)
class Probe:
    """The limits of one core while `threads` run; `levels` from the nearest to the farthest."""

    threads: int
    loads_per_second: float
    levels: tuple[Level, ...]

    def level(self, nbytes: float, memory: bool = False) -> Level:
        """Where a working set of one core lies, read again and again; with `memory`, it has been pushed out."""
        return self.levels[-1] if memory else next(level for level in self.levels if nbytes <= level.nbytes)

    def to_json(self) -> dict[str, object]:
        """Rates in units of 1e9."""
        return {
            "threads": self.threads,
            "gloads_per_core": self.loads_per_second / 1e9,
            "gbytes_per_core": {level.name: level.bandwidth / 1e9 for level in self.levels},
        }


@functools.cache
def probe_machine(threads: int) -> Probe:
    """Measure, once per process and number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            loads = _loads_per_second()
            first, second, last = cache_sizes()
            levels = (
                Level("L1", float(first), loads * VECTOR_BYTES),
                Level("L2", float(second), _read(second // 2, 1)),
                Level("L3", last / threads, _read(last // 4, 1)),
                Level("memory", float("inf"), _read(4 * last, threads)),
            )
    finally:
        torch.set_num_threads(before)
    return Probe(threads, loads, levels)


def cache_sizes() -> tuple[int, int, int]:
    """Bytes of the first (data), second and last level of cache; usual ones where Linux does not tell."""
    sizes = list(USUAL_CACHES)
    for folder in sorted(CACHES.glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and level in {"1", "2", "3"} and (match := re.fullmatch(r"(\d+)K", size)):
            sizes[int(level) - 1] = int(match[1]) * 1024
    return sizes[0], sizes[1], sizes[2]


def _loads_per_second() -> float:
    a, b = torch.randn(GEMM_SIZE, GEMM_SIZE), torch.randn(GEMM_SIZE, GEMM_SIZE)
    out = torch.empty(GEMM_SIZE, GEMM_SIZE)
    multiply_adds = GEMM_SIZE**3 / fastest(lambda: torch.mm(a, b, out=out), SECONDS)
    loads, clock = multiply_adds / (VECTOR_BYTES // 4), nominal_clock()
    return loads / 2 if clock is not None and loads > MOST_LOADS_PER_CYCLE * clock else loads


def nominal_clock() -> float | None:
    """Cycles per second, None where the system does not say."""
    try:
        match = re.search(r"^cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return float(match[1]) * 1e6 if match else None


def _read(nbytes: int, threads: int) -> float:
    """Bytes per second and core of a dot product over this many bytes, shared by the threads."""
    halves = [torch.ones(nbytes // 8 // threads) for _ in range(2 * threads)]
    if threads == 1:
        return nbytes / fastest(lambda: torch.dot(halves[0], halves[1]), SECONDS)
    with ThreadPoolExecutor(threads) as team:
        seconds = fastest(lambda: list(team.map(torch.dot, halves[::2], halves[1::2])), SECONDS)
    return nbytes / seconds / threads
