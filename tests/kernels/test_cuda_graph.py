"""The order of a capture and the arithmetic of the clock, with torch.cuda played by a recorder: no GPU needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from rnnprune.kernels import cuda_graph
from rnnprune.kernels.cuda_graph import Captured, clock_of, event_clock

GPU = torch.device("cuda", 0)


class Recorder:
    """Plays torch.cuda and writes down what is asked of it; `stream` names the current one."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.stream, self.capturing = "main", False

    def work(self) -> None:
        self.log.append("captured" if self.capturing else f"work on {self.stream}")

    def warm_up(self) -> None:
        assert not self.capturing
        self.log.append(f"warm-up on {self.stream}")

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        self.stream, before = stream.name, self.stream
        yield
        self.stream = before

    @contextmanager
    def capture(self, _: Graph, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        self.capturing = True
        yield
        self.capturing = False

    @contextmanager
    def device(self, _: torch.device) -> Iterator[None]:
        yield


class Stream:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    def wait_stream(self, other: Stream) -> None:
        self.recorder.log.append(f"{self.name} waits for {other.name}")


class Graph:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def replay(self) -> None:
        self.recorder.log.append("replay")


class Event:
    """Every entry of the log takes a millisecond."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.at = recorder, 0

    def record(self) -> None:
        self.at = len(self.recorder.log)

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return float(end.at - self.at)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    played = Recorder()
    parts: dict[str, Callable[..., object]] = {
        "Stream": lambda: Stream(played, "side"),
        "CUDAGraph": lambda: Graph(played),
        "Event": lambda enable_timing: Event(played) if enable_timing else None,
        "current_stream": lambda: Stream(played, played.stream),
        "is_current_stream_capturing": lambda: played.capturing,
        "stream": played.on,
        "graph": played.capture,
        "device": played.device,
    }
    for name, part in parts.items():
        monkeypatch.setattr(torch.cuda, name, part)
    monkeypatch.setattr(cuda_graph, "WARM_UP_RUNS", 1)
    return played


def test_the_warm_up_runs_on_another_stream_and_the_work_is_only_captured(recorder: Recorder) -> None:
    captured = Captured(recorder.work, recorder.warm_up, GPU)
    assert recorder.log == ["side waits for main", "warm-up on side", "main waits for side", "captured"]
    captured()
    captured()
    assert recorder.log[4:] == ["replay", "replay"]


def test_inside_somebody_elses_capture_the_work_becomes_part_of_theirs(recorder: Recorder) -> None:
    before = Captured(recorder.work, recorder.warm_up, GPU)
    recorder.log.clear()
    recorder.capturing = True
    before()
    during = Captured(recorder.work, recorder.warm_up, GPU)
    during()
    assert recorder.log == ["captured", "captured"]
    assert clock_of(GPU) is None, "a clock would wait"
    recorder.capturing = False
    during()
    assert recorder.log[2:] == ["work on main"]


def test_on_the_cpu_the_work_runs_and_there_is_no_clock(recorder: Recorder) -> None:
    Captured(recorder.work, recorder.warm_up, torch.device("cpu"))()
    assert recorder.log == ["work on main"]
    assert clock_of(torch.device("cpu")) is None


def test_the_clock_tells_the_microseconds_of_one_run(recorder: Recorder) -> None:
    assert event_clock(recorder.work) == 1000.0
    assert len(recorder.log) == 1 + cuda_graph.TIMED_RUNS
    assert clock_of(GPU) is event_clock
