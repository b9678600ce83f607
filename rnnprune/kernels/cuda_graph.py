"""CUDA graphs and CUDA clocks for work on fixed buffers; on the CPU the work simply runs.

Rules of capture that the caller keeps: the work allocates nothing that outlives it, waits for nothing, and reads and
writes buffers that stay where they are. Capturing runs nothing; the warm-up before it does, on another stream, so that
every kernel is compiled and loaded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP_RUNS = 2
TIMED_RUNS = 5

Work = Callable[[], object]
Clock = Callable[[Work], float]  # microseconds of one run, the least of several


class Captured:
    """Work that replays from a graph. Inside somebody else's capture it runs plainly and becomes part of theirs."""

    def __init__(self, work: Work, warm_up: Work, device: torch.device) -> None:
        self.work, self._replay = work, None if device.type == "cpu" else _capture(work, warm_up, device)

    def __call__(self) -> None:
        """Run once, on the current stream."""
        if self._replay is None or torch.cuda.is_current_stream_capturing():
            self.work()
        else:
            self._replay()


def _capture(work: Work, warm_up: Work, device: torch.device) -> Work | None:
    """What replays the graph; None inside somebody else's capture, which forbids a second one."""
    if torch.cuda.is_current_stream_capturing():
        return None
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                warm_up()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
            work()
    replay: Work = graph.replay
    return replay


def clock_of(device: torch.device) -> Clock | None:
    """CUDA events on a GPU; None on the CPU, where nothing is timed, and inside a capture, which cannot wait."""
    return None if device.type == "cpu" or torch.cuda.is_current_stream_capturing() else event_clock


def event_clock(work: Work) -> float:
    """The fastest of a few runs between two events, after a warm-up."""
    for _ in range(WARM_UP_RUNS):
        work()
    found = []
    for _ in range(TIMED_RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        found.append(float(start.elapsed_time(end)) * 1e3)
    return min(found)
