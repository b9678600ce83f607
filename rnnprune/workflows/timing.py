"""Timing that can be trusted: rivals interleaved in rounds, warmed up, medians with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

WARM_UP_ROUNDS = 3
SHORTEST_SAMPLE = 200e-6  # seconds; shorter calls are repeated within one sample, or the clock would be measured


@dataclass(frozen=True)
class Timing:
    """Microseconds per call over the rounds."""

    median_us: float
    min_us: float
    p90_us: float
    iqr_us: float


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every call once a round, starting each round with another one, so that a busy spell hits all alike."""
    names = list(calls)
    repeats = {name: _repeats(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(WARM_UP_ROUNDS + rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            seconds = _seconds(calls[name], repeats[name]) / repeats[name]
            if round_ >= WARM_UP_ROUNDS:
                samples[name].append(seconds * 1e6)
    return {name: summarise(values) for name, values in samples.items()}


def summarise(microseconds: list[float]) -> Timing:
    """Median, minimum, 90th percentile and the distance between the quartiles."""
    low, median, high, p90 = np.percentile(microseconds, [25, 50, 75, 90])
    return Timing(float(median), min(microseconds), float(p90), float(high - low))


def _repeats(call: Callable[[], object]) -> int:
    call()
    return max(1, round(SHORTEST_SAMPLE / _seconds(call, 1)))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - began
