"""Timing that can be trusted: rivals interleaved in rounds, warmed up, medians with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

WARM_UP_ROUNDS = 3
SHORTEST_SAMPLE = 1e-3  # seconds; shorter calls are repeated within one sample, or the clock would be measured
LEAD_IN = 2e-3  # seconds of untimed calls before a sample: caches come back, the last rival's threads go to rest
NO_LEAD_IN_FROM = 20e-3  # seconds; a call this long does not notice


@dataclass(frozen=True)
class Timing:
    """Microseconds per call over the rounds."""

    median_us: float
    min_us: float
    p90_us: float
    iqr_us: float

    @property
    def spread(self) -> float:
        """The distance between the quartiles, relative to the median."""
        return self.iqr_us / self.median_us


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every call once a round, starting each round with another one, so that a busy spell hits all alike."""
    names = list(calls)
    durations = {name: _duration(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(WARM_UP_ROUNDS + rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            seconds = _sample(calls[name], durations[name])
            if round_ >= WARM_UP_ROUNDS:
                samples[name].append(seconds * 1e6)
    return {name: summarise(values) for name, values in samples.items()}


def summarise(microseconds: list[float]) -> Timing:
    """Median, minimum, 90th percentile and the distance between the quartiles."""
    low, median, high, p90 = np.percentile(microseconds, [25, 50, 75, 90])
    return Timing(float(median), min(microseconds), float(p90), float(high - low))


def fastest(call: Callable[[], object], seconds: float) -> float:
    """The shortest of many calls within about this many seconds, and of five at least; in seconds."""
    call()
    end, found, count = time.perf_counter() + seconds, float("inf"), 0
    while count < 5 or time.perf_counter() < end:
        found, count = min(found, _seconds(call, 1)), count + 1
    return found


def _sample(call: Callable[[], object], duration: float) -> float:
    """Seconds per call, after the lead-in."""
    short = duration < NO_LEAD_IN_FROM
    if short:
        _seconds(call, max(2, round(LEAD_IN / duration)))
    repeats = max(2 if short else 1, round(SHORTEST_SAMPLE / duration))
    return _seconds(call, repeats) / repeats


def _duration(call: Callable[[], object]) -> float:
    call()
    return max(1e-9, min(_seconds(call, 1) for _ in range(2)))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - began
