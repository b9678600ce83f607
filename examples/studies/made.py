"""A command run once: its answer is kept beside what it made, and found again as long as the command is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rnnprune.formats.atomic import write_atomic


class Failed(Exception):
    """A command that ended with another exit code than 0."""

    def __init__(self, words: tuple[str, ...], code: int, log: Path) -> None:
        super().__init__(f"rnnprune {words[0]} ended with exit code {code}; see {log}")
        self.code = code


def kept(made: Path, *words: str) -> dict[str, Any]:
    """The answer of `rnnprune WORDS --json`, from the file `made` where it holds that of the same command.

    Progress goes to `log` in the same folder. Raises Failed, with the exit code.
    """
    command = ["rnnprune", *words]
    try:
        found = json.loads(made.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        found = {}
    if found.get("command") != command:
        found = {"command": command, "answer": _answer(made.with_name("log"), words)}
        write_atomic(made, json.dumps(found).encode())
    answer: dict[str, Any] = found["answer"]
    return answer


def _answer(log: Path, words: tuple[str, ...]) -> Any:
    one_core = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (
        log.open("ab") as told,
        subprocess.Popen(
            [sys.executable, "-m", "rnnprune", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=told,
            env={**os.environ, **one_core},
        ) as process,
    ):
        try:
            answer, _ = process.communicate()
        except BaseException:
            process.terminate()  # it saves its step; leaving the block waits for that
            raise
    if process.returncode:
        raise Failed(words, process.returncode, log)
    return json.loads(answer)
