"""SIGINT and SIGTERM: in the training loop they wait for the end of the step, anywhere else they stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rnnprune.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Which signal asked for a stop, if any did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A handler: the first signal is noted, the second SIGINT stops at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise Interrupted(number, "stopped at once; the last saved state stands")
        self.signal = self.signal or number


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """SIGINT and SIGTERM alike raise Interrupted where the program stands, so that what is half done is undone."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Interrupted(number)

    with _handling(stop):
        yield


@contextmanager
def stopping_after_the_step() -> Iterator[Stop]:
    """The first signal only sets `Stop.signal`: whoever looks at it finishes the step and saves."""
    stop = Stop()
    with _handling(stop.note):
        yield stop
    if stop.signal is not None:  # it came after the last look
        raise Interrupted(stop.signal)


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    """Python lets only the main thread handle signals; elsewhere they stay with whoever runs the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
