"""Make what is missing, in order; go on where it was interrupted; never two in one place."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from examples.commands import Failed, kept
from examples.studies import choice, raw
from examples.studies.cells import Cell
from examples.studies.runs import Dense, Run, Work
from rnnprune.errors import StorageError
from rnnprune.formats.lock import folder_lock

DIVERGED = 5  # exit code: that is a result, and the same again next time
SECONDS_BETWEEN_LOOKS = 10.0


class Busy(Exception):
    """Another runner is at work there."""


def make_all(cells: Sequence[Cell], jobs: int) -> int:
    """The exit code: 0 when all cells are done, 1 when some could not be made."""
    signal.signal(signal.SIGTERM, _end)
    if jobs > 1:
        return _side_by_side(jobs)
    fetch({work.task for work in missing_work(cells)})
    failed: dict[str, str] = {}
    while True:
        missing = [work for work in missing_work(cells) if work.name not in failed]
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
        shutil.rmtree(work.folder, ignore_errors=True)


def missing_work(cells: Iterable[Cell]) -> Iterator[Work]:
    """Every run and file that can be made now, each once, in order."""
    seen: set[str] = set()
    for cell in cells:
        for work in choice.asked(cell).work:
            if f"{work.task}/{work.name}" not in seen and raw.read(work) is None:
                seen.add(f"{work.task}/{work.name}")
                yield work


def _make_first_free(missing: Sequence[Work], failed: dict[str, str]) -> bool:
    """Whether anything was made or has failed."""
    for work in missing:
        began = time.monotonic()
        try:
            make(work)
        except Busy:
            continue
        except Failed as error:
            failed[work.name] = str(error)
        print(f"{time.strftime('%H:%M:%S')} {work.task}/{work.name}: {_told(work)}, "
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
    work.folder.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(work.folder):
            log, commands = work.folder / "log", work.commands().items()
            answers = {name: kept(work.folder / f"{name}.json", *words, log=log) for name, words in commands}
            raw.write(work, raw.figures_of(work, answers))
    except StorageError as error:
        raise Busy from error
    except Failed as error:
        if error.code != DIVERGED:
            raise
        raw.write(work, raw.diverged(error.code))


def _told(work: Work) -> str:
    found = raw.read(work)
    if found is None or "failed" in found:
        return "failed" if found is None else "diverged"
    if not isinstance(work, Run):
        return "made"
    return f"{found['metric']} {found['figures'][choice.label(found)]['validation'][found['metric']]:.4g}"


def _side_by_side(jobs: int) -> int:
    """As many runners of one job each; what keeps them apart would keep any others apart."""
    words = [word for word in sys.argv[1:] if not word.startswith("--jobs")]
    if "--jobs" in sys.argv:
        words.remove(sys.argv[sys.argv.index("--jobs") + 1])
    runners = [subprocess.Popen([sys.executable, "-m", "examples.studies", *words]) for _ in range(jobs)]
    try:
        return max(runner.wait() for runner in runners)
    finally:
        for runner in runners:
            runner.terminate()
            runner.wait()


def _end(*_: object) -> NoReturn:
    sys.exit(143)
