"""How long the files of study D take: measured apart from all training, since a busy machine would spoil it.

The figure is that of `rnnprune sweep`: the recurrent layers, one sequence of 100 steps at batch 1, one thread; torch's
dense fp32 and dynamic int8 of the same layers are timed in the same interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from examples.studies import choice, raw
from examples.studies.cells import Cell
from examples.studies.runs import Stored, Timed, key

ROUNDS = 20
TAKES, UNSTEADY = 3, 0.15  # a machine that was disturbed is asked again


def timed_by(cells: Iterable[Cell]) -> Iterator[Timed]:
    """What of each stored run is timed: the file of seed 0, each once."""
    for cell in cells:
        if cell.seed == 0:
            yield from (Timed(work) for work in choice.asked(cell).work if isinstance(work, Stored))


def steady(found: raw.Raw | None) -> bool:
    """Whether it was measured, on a machine that nothing disturbed."""
    return found is not None and found["spread"] < UNSTEADY


def time_all(cells: Iterable[Cell]) -> int:
    """Measure what was not yet, or while something disturbed it; kept after each, so it may be interrupted. The exit
    code."""
    from rnnprune.workflows.latency import measure_latency
    from rnnprune.workflows.machine import describe_machine

    missing = 0
    for timed in timed_by(cells):
        if steady(raw.read(timed)):
            continue
        if not timed.file.exists():
            missing += 1
            continue
        takes = (measure_latency(timed.file, threads=1, rounds=ROUNDS) for _ in range(TAKES))
        found = next((take for take in takes if take and steady(take.to_json())), None)
        if found is None:
            print(f"{key(timed)}: quartiles {UNSTEADY:.0%} apart and more; time it on a quiet machine")
            missing += 1
            continue
        machine = describe_machine()
        told = {**found.to_json(), "machine": f"{machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}"}
        raw.write(timed, told)
        print(f"{key(timed)}: {found.us / 1000:.2f} ms, dense {found.dense_us / 1000:.2f} ms, "
              f"quartiles {found.spread:.0%} apart", flush=True)  # fmt: skip
    if missing:
        print(f"{missing} files are not there to be timed: `python -m examples.studies run D` makes them")
    return 1 if missing else 0
