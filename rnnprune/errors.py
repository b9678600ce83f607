"""Every error that rnnprune raises on purpose, and the exit code each one becomes.

    RnnpruneError          the base: catch this to catch them all
    ├── UsageError         2  the call itself is wrong: a flag, an argument, an impossible schedule
    ├── InputRefused       3  a file is unsafe, corrupt or not what it claims to be
    ├── GoalMissed         4  the work succeeded and the goal that was set for it did not
    ├── Diverged           5  loss or weights are no longer finite
    └── StorageError       6  nothing could be written: disk full, folder read-only, path taken

    KeyboardInterrupt
    └── Interrupted  130, 143  SIGINT or SIGTERM; no Exception, so that nobody's `except Exception` takes it;
                               143 as well where another process of the same run is lost

A message says what was found, why that cannot go on, and what to do about it.
"""

from typing import ClassVar

LONGEST_SHOWN = 200


class RnnpruneError(Exception):
    """Base of every error raised on purpose. Its text is safe on a terminal, whatever names it quotes."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__("\n".join(map(_escaped, message.split("\n"))))


class UsageError(RnnpruneError):
    """The call cannot be carried out as it was written."""

    exit_code = 2


class InputRefused(RnnpruneError):
    """A file was refused; nothing in it was executed."""

    exit_code = 3


class GoalMissed(RnnpruneError):
    """The run finished, short of the goal set for it."""

    exit_code = 4


class Diverged(RnnpruneError):
    """Loss, gradients or weights became NaN or infinite."""

    exit_code = 5


class StorageError(RnnpruneError):
    """The output could not be written; what stood there before still stands."""

    exit_code = 6


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop; the message says what can be gone on from, if anything."""

    def __init__(self, signal_number: int, message: str = "") -> None:
        super().__init__(message)
        self.signal = signal_number
        self.exit_code = 128 + signal_number


def printable(text: str, longest: int = LONGEST_SHOWN) -> str:
    """A name from somebody's file, safe on a terminal: what is no printable character (ESC, line ends, text that runs
    backwards, lone surrogates) is escaped as Python writes it, and a long text loses its middle.
    """
    if len(text) > longest:
        half = longest // 2 - 2
        text = f"{text[:half]}...{text[-half:]}"
    return _escaped(text)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
