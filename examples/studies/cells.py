"""The cells and the order in which they are made.

A cell is one study, task, variant and seed. It asks for runs: dense checkpoints and fine-tunings, each made once
however many cells ask for it, since a run is known by its words alone. The learning rate of a variant is tuned with
seed 0, by the validation split, from the task's same three rates on for every one; the other seeds take the best. See
choice.py.
"""

from __future__ import annotations

from typing import NamedTuple

from examples.studies.variants import SEEDS, STUDIES, Variant

ORDER = (  # the most telling first
    *((study, "g2p") for study in "ABC"),
    *((study, "lm") for study in "ABC"),
    *(("D", task) for task in ("g2p", "lm")),
    *((study, "speech") for study in "ABC"),
    ("F", "g2p"),
    ("E", "g2p"),
    ("F", "lm"),
    ("F", "speech"),
    ("D", "speech"),
)


class Cell(NamedTuple):
    """One study, task, variant and seed."""

    study: str
    task: str
    name: str
    seed: int

    @property
    def variant(self) -> Variant:
        """What is tried."""
        return STUDIES[self.study][self.name]

    def __str__(self) -> str:
        return f"{self.study}/{self.task}/{self.name}/{self.seed}"


def cells(selection: str = "") -> list[Cell]:
    """All of them in the order in which they are made, or those under `STUDY[/TASK[/VARIANT[/SEED]]]`.

    Raises ValueError where there is none.
    """
    every = [
        Cell(study, task, name, seed)
        for study, task in ORDER
        for seed in SEEDS
        for name, variant in STUDIES[study].items()
        if task in variant.tasks and seed in variant.seeds
    ]
    asked = selection.strip("/").split("/") if selection else []
    found = [cell for cell in every if str(cell).split("/")[: len(asked)] == asked]
    if not found:
        raise ValueError(f"{selection}: no such cell; expected STUDY[/TASK[/VARIANT[/SEED]]] such as A/g2p/dense/0")
    return found
