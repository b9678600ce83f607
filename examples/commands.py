"""Commands of rnnprune as a user would type them; an answer is kept beside what it made, and found again there."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rnnprune.formats.atomic import write_atomic


class Failed(SystemExit):
    """A command that ended with another exit code than 0; where nobody catches it the program ends with that code."""

    def __init__(self, words: tuple[str, ...], code: int, log: Path | None) -> None:
        super().__init__(f"rnnprune {words[0]} ended with exit code {code}" + (f"; see {log}" if log else ""))
        self.code = code


def ask(*words: str, log: Path | None = None) -> dict[str, Any]:
    """What `rnnprune WORDS --json` prints; its progress in sight, or added to `log`. Raises Failed."""
    if log is None:
        print(f"\n$ rnnprune {shlex.join(words)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "rnnprune", *words, "--json"]
    with (
        nullcontext() if log is None else log.open("ab") as told,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told) as process,
    ):
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            process.communicate()  # Ctrl-C reached it as well: it saves its step, and tells how to go on
            sys.exit(130)
        except BaseException:
            process.terminate()  # it saves its step; leaving the block waits for that
            raise
    if process.returncode:
        raise Failed(words, process.returncode, log)
    answer: dict[str, Any] = json.loads(printed)
    return answer


def kept(file: Path, *words: str, log: Path | None = None) -> dict[str, Any]:
    """The answer of a command, from the file where it holds that of the same words; else the command is run."""
    command = ["rnnprune", *words]
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        found = {}
    if found.get("command") != command:
        found = {"command": command, "answer": ask(*words, log=log)}
        write_atomic(file, json.dumps(found, indent=1).encode())
    answer: dict[str, Any] = found["answer"]
    return answer
