"""Files that libFuzzer makes: `make fuzz-guided`. Each one that reaches code which none before it reached is kept and
changed further, which finds what changes at random would need luck for; every verdict is that of judge.py.

Arguments are libFuzzer's. A file that is judged wrongly is left as build/fuzz/crash-...; give it as the argument to see
it again. https://github.com/google/atheris
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rnnprune"]):  # the readers and what they stand on, not the whole program
    from rnnprune.formats import checkpoint, sparse  # noqa: F401

from tests.fuzz.bases import bases
from tests.fuzz.judge import judge
from tests.fuzz.mutate import Victim, victim

FOLDER = Path("build/fuzz")
RAM = Path("/dev/shm")
OURS = 0.25  # share of the changes that know what kind of file it is


def main() -> None:
    """Does not come back."""
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, base in bases().items():
        (corpus / name.replace(" ", "-")).write_bytes(base.data)
    path = Path(tempfile.mkdtemp(dir=RAM if RAM.is_dir() else None)) / f"victim-{os.getpid()}"

    def one_file(data: bytes) -> None:
        path.write_bytes(data)
        judge(path, Victim("csr", data), everything=False)

    limits = [f"-artifact_prefix={FOLDER}/", "-timeout=10", "-rss_limit_mb=4096", "-max_len=16384"]
    given = sys.argv[1:]
    files = [] if any(not word.startswith("-") for word in given) else [str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *given, *files], one_file, custom_mutator=changed)
    atheris.Fuzz()


def changed(data: bytes, size: int, seed: int) -> bytes:
    """Another file: one of ours, or what libFuzzer makes of this one."""
    rng = random.Random(seed)
    if rng.random() < OURS:
        return victim(rng.getrandbits(32)).data[:size]
    return bytes(atheris.Mutate(data, size))


if __name__ == "__main__":
    main()
