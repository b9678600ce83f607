"""Several runs at once, each in a process of its own: one that dies, or is killed, takes no other along.

A run's process ends when this one does, however that ends: it saves its step first, so the next start goes on there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from rnnprune.errors import Interrupted, RnnpruneError, StorageError
from rnnprune.training.loop import StepRecord
from rnnprune.training.stopping import stopping_at_once
from rnnprune.workflows.finetune import Observer, Phase
from rnnprune.workflows.finetune_plan import FinetuneRequest
from rnnprune.workflows.made_run import make_run

SECONDS_BETWEEN_LINES = 30.0
SECONDS_TO_STOP = 120.0  # for a run to end its step and save

Tell = Callable[[str], None]
Failures = dict[str, RnnpruneError]


class Teller(Observer):
    """A line now and then about one run."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name, self._tell, self._told = name, tell, time.monotonic()

    def step(self, phase: Phase, record: StepRecord) -> None:
        if time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._tell(f"{self._name}: {phase} {record.step}/{record.total_steps}, loss {record.loss:.3f}")

    def note(self, text: str) -> None:
        self._tell(f"{self._name}: {text}")


def make_all(requests: Mapping[str, FinetuneRequest], jobs: int, tell: Tell) -> Failures:
    """Make every run, `jobs` of them at a time; those that could not be made, with why.

    One job: in this process. Raises StorageError at once (the others would meet it too), after the runs at work have
    saved their step; so does an interruption.
    """
    return _one_by_one(requests, tell) if jobs == 1 else _Crew(jobs, tell).make(requests)


def _one_by_one(requests: Mapping[str, FinetuneRequest], tell: Tell) -> Failures:
    failures: Failures = {}
    for name, request in requests.items():
        try:
            make_run(request, Teller(name, tell))
            tell(f"{name}: done")
        except StorageError:
            raise
        except RnnpruneError as error:
            failures[name] = error
            tell(f"{name}: {error}")
    return failures


class _Crew:
    """The processes at work, by the connection on which each one tells."""

    def __init__(self, jobs: int, tell: Tell) -> None:
        self._jobs, self._tell = jobs, tell
        self._at_work: dict[Connection, tuple[str, SpawnProcess]] = {}
        self._failures: Failures = {}

    def make(self, requests: Mapping[str, FinetuneRequest]) -> Failures:
        waiting = list(requests.items())
        try:
            while waiting or self._at_work:
                while waiting and len(self._at_work) < self._jobs:
                    self._start(*waiting.pop(0))
                for connection in wait(list(self._at_work)):
                    assert isinstance(connection, Connection)
                    self._hear(connection)
        finally:
            self._stop()
        return self._failures

    def _start(self, name: str, request: FinetuneRequest) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take torch's threads along half
        hears, tells = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, request, tells), name=name)
        process.start()
        tells.close()  # or its end would not be seen
        self._at_work[hears] = (name, process)

    def _hear(self, connection: Connection) -> None:
        name, process = self._at_work[connection]
        try:
            told: str | RnnpruneError = connection.recv()
        except EOFError:
            del self._at_work[connection]
            process.join()
            if process.exitcode:
                self._failures.setdefault(name, StorageError(_how_it_ended(name, process.exitcode)))
            return
        if isinstance(told, StorageError):
            raise told
        if isinstance(told, RnnpruneError):
            self._failures[name] = told
            told = f"{name}: {told}"
        self._tell(told)

    def _stop(self) -> None:
        """Whoever is still at work saves and ends."""
        for _, process in self._at_work.values():
            process.terminate()
        for _, process in self._at_work.values():
            process.join(SECONDS_TO_STOP)
            if process.is_alive():
                process.kill()


def _how_it_ended(name: str, code: int) -> str:
    how = (
        f"was killed by signal {-code} (out of memory? try fewer --jobs)"
        if code < 0
        else f"ended with exit code {code}"
    )
    return f"{name}: its process {how}; the same command goes on with it"


def _work(name: str, request: FinetuneRequest, connection: Connection) -> None:
    """In the process of one run."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with stopping_at_once():
        try:
            make_run(request, Teller(name, connection.send))
            connection.send(f"{name}: done")
        except RnnpruneError as error:
            connection.send(error)
        except Interrupted as error:
            raise SystemExit(error.exit_code) from error


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
