"""The rows of a study on a task: of every variant the figures of its seeds, at the rate that was chosen for it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from examples.studies import choice
from examples.studies.cells import Cell
from examples.studies.raw import Raw, read
from examples.studies.runs import Stored, Timed, run_of
from examples.studies.variants import SEEDS, STUDIES, Form, Variant

NOT_RUN = "not run"


class Row(NamedTuple):
    """raws, stored: by seed, those that are there. rate: None as long as it is not chosen. timed: of seed 0."""

    name: str
    variant: Variant
    rate: str | None
    raws: Mapping[int, Raw]
    stored: Mapping[int, Raw]
    timed: Raw | None

    def test(self) -> dict[int, float]:
        """Seed -> the task's figure on the test split; infinite where the run diverged."""
        return {seed: _test(raw) for seed, raw in self.raws.items()}

    @property
    def forms(self) -> tuple[Form, ...]:
        """Those that are stored; and the dense one once more, as the native engine would run it."""
        stored = self.variant.forms
        return (*stored, "dense-native") if "dense" in stored else stored

    def file(self, form: Form) -> dict[int, float]:
        """Seed -> the task's figure of a file, on the engine that reads it."""
        form = _stored_as(form)
        metric = next((raw["metric"] for raw in self.raws.values() if "metric" in raw), None)
        return {seed: raw["files"][form]["figures"][metric] for seed, raw in self.stored.items() if "files" in raw}

    def latency(self, form: Form) -> float | None:
        """Microseconds; of a sparse file the same for every kind of values, which all run as float32."""
        key = {"dense": "dense_us", "dense-int8": "int8_us"}.get(form, "us")
        return self.timed[key] if self.timed is not None else None

    def bytes(self, form: Form) -> int | None:
        """Of the file of the first seed."""
        form = _stored_as(form)
        return next((raw["files"][form]["bytes"] for raw in self.stored.values() if "files" in raw), None)

    def of_any(self, key: str) -> float | None:
        """A number that all seeds share, such as the nonzeros."""
        return next((raw[key] for raw in self.raws.values() if key in raw), None)


Rows = Mapping[str, Row]


def _stored_as(form: Form) -> Form:
    return "dense" if form == "dense-native" else form


def control_of(task: str, longer: int = 1) -> dict[int, float]:
    """Seed -> the figure of the dense model trained on for as many steps, or for fewer where the validation split of
    seed 0 finds that better: a control that has begun to overfit would flatter whatever is held against it."""
    controls = [_row("A", task, "dense"), *([_row("F", task, "control4")] if longer > 1 else [])]
    made = [row for row in controls if 0 in row.raws]
    return min(made, key=lambda row: choice.badness(row.raws[0]), default=controls[0]).test()


def rows(study: str, task: str) -> dict[str, Row]:
    """By the names of the variants that the task has."""
    found = {name: _row(study, task, name) for name, each in STUDIES[study].items() if task in each.tasks}
    return {name: row._replace(timed=_on_one_clock(row, found)) for name, row in found.items()}


def _on_one_clock(row: Row, beside: Mapping[str, Row]) -> Raw | None:
    """What was timed of a row, as shares of the dense twin in the same rounds, times the median of all such twins.

    The machine is slower at times, for minutes; only what ran side by side can be compared.
    """
    if row.timed is None:
        return None
    alike = [each.timed for each in beside.values() if each.timed and each.variant.size == row.variant.size]
    dense = statistics.median(each["dense_us"] for each in alike)
    int8 = statistics.median(each["int8_us"] / each["dense_us"] for each in alike)
    return {"us": row.timed["us"] / row.timed["dense_us"] * dense, "dense_us": dense, "int8_us": int8 * dense}


def _row(study: str, task: str, name: str) -> Row:
    cell = Cell(study, task, name, 0)
    rate = choice.chosen(cell)
    runs = {} if rate is None else {seed: run_of(cell._replace(seed=seed), rate) for seed in SEEDS}
    stored = {seed: Stored(run, cell.variant.forms) for seed, run in runs.items() if cell.variant.forms}
    timed = read(Timed(stored[0])) if stored else None
    return Row(
        name,
        cell.variant,
        rate,
        {seed: raw for seed, run in runs.items() if (raw := read(run)) is not None},
        {seed: raw for seed, files in stored.items() if (raw := read(files)) is not None},
        timed,
    )


def _test(raw: Raw) -> float:
    if "failed" in raw:
        return math.inf
    value = raw["figures"][choice.label(raw)]["test"][raw["metric"]]
    return math.inf if value is None else float(value)


def shown(values: Sequence[float], unit: str = "", sign: str = "") -> str:
    """`12.34 ± 0.05`: mean and standard deviation; how many seeds where not all are there."""
    if not values:
        return NOT_RUN
    if not all(map(math.isfinite, values)):
        return "diverged"
    mean = statistics.fmean(values)
    places = 1 if unit else 2 if abs(mean) >= 10 else 3
    text = f"{mean:{sign}.{places}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{places}f}"
    few = "" if len(values) == len(SEEDS) else f" ({len(values)} seed{'s' * (len(values) > 1)})"
    return f"{text}{unit}{few}"


Measure = Callable[[float], float]


def relative(values: Mapping[int, float], others: Mapping[int, float], measure: Measure = float) -> list[float]:
    """Seed by seed, how much larger in percent, of the seeds that both have."""
    both = [(values[seed], others[seed]) for seed in values if seed in others]
    return [100 * (measure(one) / measure(other) - 1) for one, other in both if measure(other)]


def perplexity(bits: float) -> float:
    """Of a character, from its bits."""
    return float(2**bits)
