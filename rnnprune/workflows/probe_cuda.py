"""What a GPU allows: the least time of one launch in a graph, and bytes per second from its L2 cache and its memory.

The bound of a piece of work on an engine is the sum of its launches (one per product, or per time step of a layer and
one for its input) and of the bytes of its weights, from where so many bytes lie. Activations, gates and arithmetic are
not counted. An engine that keeps its weights on the chip, as cuDNN can for small float16 layers, runs faster than this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnprune.kernels.cuda_graph import Captured, Clock
from rnnprune.workflows.bench_bound import Bound
from rnnprune.workflows.rivals import Work

LAUNCHES = 64
COPY_SHARE = 8  # a copy of an eighth of the cache reads and writes a quarter of it
TIMES_THE_CACHE = 8
USUAL_L2 = 50 * 2**20  # bytes, of an H100; where torch does not tell


@dataclass(frozen=True)
class GpuProbe:
    """Microseconds per launch; bytes of the L2 cache; bytes per second, reading and writing counted."""

    launch_us: float
    l2_bytes: int
    l2_bandwidth: float
    memory_bandwidth: float

    def to_json(self) -> dict[str, float]:
        """Rates in units of 1e9."""
        return {
            "launch_us": self.launch_us,
            "l2_mbytes": self.l2_bytes / 2**20,
            "gbytes_l2": self.l2_bandwidth / 1e9,
            "gbytes_memory": self.memory_bandwidth / 1e9,
        }


def probe_gpu(device: torch.device, clock: Clock, l2_bytes: int) -> GpuProbe:
    """Measure with this clock (microseconds of one run)."""
    number = torch.zeros(1, device=device)

    def launches() -> None:
        for _ in range(LAUNCHES):
            number.add_(1.0)

    launch_us = clock(Captured(launches, launches, device)) / LAUNCHES
    l2 = _copy_bandwidth(device, clock, l2_bytes // COPY_SHARE, launch_us)
    return GpuProbe(launch_us, l2_bytes, l2, _copy_bandwidth(device, clock, TIMES_THE_CACHE * l2_bytes, 0.0))


def l2_bytes_of(device: torch.device) -> int:
    """Of the whole GPU."""
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or USUAL_L2


def gpu_bound(probe: GpuProbe, work: Work, nbytes: int) -> Bound:
    """For an engine whose weights take `nbytes` in all, shared among its matrices as their elements are."""
    matrices = work.piece.matrices
    total = sum(int(matrix.count_nonzero()) for matrix in matrices.values()) or 1
    steps = work.steps if work.piece.stack else 1
    each_step = sum(int(matrix.count_nonzero()) for name, matrix in matrices.items() if name != "weight_ih_l0") / total
    once = 1.0 - each_step if work.piece.stack else 0.0
    fits = nbytes <= probe.l2_bytes
    bandwidth = probe.l2_bandwidth if fits else probe.memory_bandwidth
    us_bytes = nbytes * (once + steps * each_step) / bandwidth * 1e6
    us_launches = probe.launch_us * (steps + (work.piece.stack is not None))
    return Bound(us_launches + us_bytes, f"launches and bytes from {'L2' if fits else 'memory'}")


def _copy_bandwidth(device: torch.device, clock: Clock, nbytes: int, launch_us: float) -> float:
    source = torch.zeros(nbytes // 4, device=device)
    target: Tensor = torch.empty_like(source)
    copy = Captured(lambda: target.copy_(source), lambda: target.copy_(source), device)
    return 2 * nbytes / max(1e-3, clock(copy) - launch_us) * 1e6
