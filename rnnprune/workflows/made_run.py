"""One of many runs that make one answer: made once, found again, gone on with where it was interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnprune.errors import InputRefused, StorageError, UsageError
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import MANIFEST, is_run_folder
from rnnprune.tasks.protocol import Task
from rnnprune.workflows.finetune import Observer, finetune
from rnnprune.workflows.finetune_plan import FinetuneRequest, fingerprint_of
from rnnprune.workflows.resume import differences, first_of, plain_json
from rnnprune.workflows.subject import Subject

SECONDS_TO_LET_GO = 60.0  # for what a killed program left running: it saves its step and ends
SECONDS_BETWEEN_LOOKS = 0.2

Manifest = Mapping[str, Any]


def make_run(request: FinetuneRequest, observer: Observer) -> None:
    """Make the run, or go on with it; nothing is done where it is finished. `request.out` says where."""
    assert request.out is not None
    if not is_run_folder(request.out):
        _wait_until_free(request.out)
        finetune(request, observer)


def read_run(
    request: FinetuneRequest, subject: Subject, task: Task, instead: str = "or choose another --out"
) -> Manifest | None:
    """The manifest of the run where it is finished, else None.

    instead: what else a person may do. Raises UsageError with the differences where it was made with other settings,
    InputRefused where it is damaged.
    """
    assert request.out is not None
    if not is_run_folder(request.out):
        return None
    path = request.out / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_with = manifest["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputRefused(f"{path}: damaged ({error!r}); remove {request.out}, and it is made again") from error
    if changed := differences(made_with, plain_json(fingerprint_of(request, subject, task))):
        raise UsageError(
            f"{request.out} was made with other settings: {first_of(changed)}. "
            f"Give the old settings to go on, {instead}"
        )
    return manifest


def _wait_until_free(folder: Path) -> None:
    """Raises the StorageError of `folder_lock` where somebody else stays at work there."""
    deadline = time.monotonic() + SECONDS_TO_LET_GO
    while True:
        try:
            with folder_lock(folder):
                return
        except StorageError:
            if not folder.is_dir() or time.monotonic() > deadline:
                raise
            time.sleep(SECONDS_BETWEEN_LOOKS)
