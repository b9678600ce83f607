"""Make what is missing, in order; go on where it was interrupted; never two in one place."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import NoReturn

from examples.commands import Failed, kept
from examples.studies import choice, raw
from examples.studies.cells import Cell
from examples.studies.runs import Dense, Run, Stored, Timed, Work, key
from rnnprune.errors import StorageError
from rnnprune.formats.lock import folder_lock

DIVERGED = 5  # exit code: that is a result, and the same again next time
SECONDS_BETWEEN_LOOKS = 10.0


class Busy(Exception):
    """Another runner is at work there."""


def make_all(cells: Sequence[Cell]) -> int:
    """The exit code: 0 when all cells are done, 1 when some could not be made."""
    signal.signal(signal.SIGTERM, _end)
    fetch({work.task for work in missing_work(cells)})
    failed: dict[str, str] = {}
    while True:
        missing = [work for work in missing_work(cells) if key(work) not in failed]
        if not missing:
            break
        if not _make_first_free(missing, failed):
            time.sleep(SECONDS_BETWEEN_LOOKS)  # all that is missing is in the hands of others
    for name, why in failed.items():
        print(f"{name}: {why}")
    return 1 if failed else 0


def fetch(tasks: Iterable[str]) -> None:
    """The data of these tasks, where it is not there; see examples/text and examples/speech."""
    from examples.speech import run as speech
    from examples.text import run as text

    examples = {**text.EXAMPLES, "speech": speech.EXAMPLES["en"]}
    for task in tasks:
        examples[task].prepare()


def forget(cells: Sequence[Cell]) -> None:
    """Drop what was made for these cells, with its figures, so that it is made again; dense checkpoints stay."""
    for work in [work for cell in cells for work in choice.asked(cell).work]:
        raw.path_of(work).unlink(missing_ok=True)
        if isinstance(work, Stored):
            raw.path_of(Timed(work)).unlink(missing_ok=True)
        shutil.rmtree(work.folder, ignore_errors=True)


def missing_work(cells: Iterable[Cell]) -> Iterator[Work]:
    """Every run and file that can be made now, each once, in order."""
    seen: set[str] = set()
    for cell in cells:
        for work in choice.asked(cell).work:
            if key(work) not in seen and raw.read(work) is None:
                seen.add(key(work))
                yield work


def _make_first_free(missing: Sequence[Work], failed: dict[str, str]) -> bool:
    """Whether anything was made or has failed."""
    for work in missing:
        began = time.monotonic()
        try:
            make(work)
        except Busy:
            continue
        except (Failed, StorageError) as error:
            failed[key(work)] = str(error)
        print(f"{time.strftime('%H:%M:%S')} {key(work)}: {_told(work)}, "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
        return True
    return False


def make(work: Work) -> None:
    """Make it and keep its figures. Raises Busy where another runner has it, or a checkpoint that it needs."""
    if isinstance(work, Run):
        for dense in work.needs():
            if not (dense.file.is_file() and raw.read(dense)):
                make(dense)
    elif not isinstance(work, Dense) and not work.made.run.is_dir():
        make(work.made)
    with ExitStack() as held:
        try:
            held.enter_context(folder_lock(work.folder))
        except StorageError as error:
            raise Busy from error
        _forget_what_others_made(work)
        log, commands = work.folder / "log", work.commands().items()
        try:
            answers = {name: kept(work.folder / f"{name}.json", *words, log=log) for name, words in commands}
        except Failed as error:
            if error.code != DIVERGED:
                raise
            raw.write(work, raw.diverged(error.code))
        else:
            raw.write(work, raw.figures_of(work, answers))


def _forget_what_others_made(work: Work) -> None:
    """What lies there of other commands than these, or of another checkpoint."""
    if isinstance(work, Stored) or not raw.path_of(work).exists() or raw.read(work) is not None:
        return
    for each in work.folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    raw.path_of(work).unlink()


def _told(work: Work) -> str:
    found = raw.read(work)
    if found is None or "failed" in found:
        return "failed" if found is None else "diverged"
    if not isinstance(work, Run):
        return "made"
    return f"{found['metric']} {found['figures'][choice.label(found)]['validation'][found['metric']]:.4g}"


def side_by_side(selection: str, jobs: int) -> int:
    """As many runners of one job each; what keeps them apart would keep any others apart."""
    signal.signal(signal.SIGTERM, _end)
    command = [sys.executable, "-m", "examples.studies", "run", selection]
    runners = [subprocess.Popen(command) for _ in range(jobs)]
    try:
        return max(runner.wait() for runner in runners)
    finally:
        for runner in runners:
            runner.terminate()
            runner.wait()


def _end(*_: object) -> NoReturn:
    sys.exit(143)
