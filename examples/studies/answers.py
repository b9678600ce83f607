"""What was asked of the studies, and what the raw figures answer: a line or two under a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping

from examples.studies.rows import NOT_RUN, Row, Rows, control_of, perplexity, relative, shown
from examples.studies.tasks import TASKS
from examples.studies.variants import SEEDS

LEAST_BYTES = 0.12  # of dense fp32, asked for of a model that loses at most NEAR
NEAR = 1.02  # times the control's figure
HARD = ("oneshot", "hard05", "hard25", "hard50")  # the last cuts as late as gradual does


def large_sparse_against_small_dense(task: str, found: Rows) -> list[str]:
    """Study A. Of a language model by its perplexity, of a character."""
    measure = perplexity if task == "lm" else float
    what = "perplexity" if task == "lm" else TASKS[task].shown
    whole, lines = found["dense"].of_any("weights"), []
    for steps, told in (("", ""), ("4", ", four times the steps")):
        small, large = (found.get(f"{name}{steps}") for name in ("dense-small", "sparse-large"))
        if small is None or large is None:
            continue
        lower, left = _below(large, small, measure), large.of_any("nonzeros")
        higher = shown(relative(large.test(), control_of(task, large.variant.longer), measure), " %", "+")
        times = f", which has {whole / left:.1f} times as many weights" if whole and left else ""
        lines += [
            f"{what}, sparse from large below dense small{told}: {lower}; asked for: at least 25 %.",
            f"{what}, sparse from large above the dense baseline{times}{told}: {higher}; asked for: not above.",
        ]
    return lines


def gradual_against_hard(_: str, found: Rows) -> list[str]:
    """Study B: against the best of hard by its mean on the test split, the hardest rival; and against the one that cuts
    as late."""
    lines = []
    for saliency in ("magnitude", "fisher"):
        hard = [row for name in HARD if (row := found.get(f"{name}-{saliency}"))]
        if not hard:
            continue
        best = min(hard, key=lambda row: statistics.fmean(row.test().values() or [math.inf]))
        lines += [
            f"{saliency}, gradual below the best of hard ({best.variant.method}): {_by_method(found, saliency, best)}; "
            "asked for: at least 7 %.",
        ]
        if late := found.get(f"hard50-{saliency}"):
            lines.append(
                f"{saliency}, gradual below what is cut as late ({late.variant.method}): "
                f"{_by_method(found, saliency, late)}."
            )
    return lines


def _by_method(found: Rows, saliency: str, other: Row) -> str:
    gradual = {"gradual": "", "aimed": "aimed anew ", "cubic": "cubic "}
    made = {told: row for name, told in gradual.items() if (row := found.get(f"{name}-{saliency}"))}
    return ", ".join(told + _below(row, other) for told, row in made.items())


def with_and_without_a_teacher(_: str, found: Rows) -> list[str]:
    """Study C."""
    told = {"taught": "with the teacher's outputs", "retold": "with the teacher's own answers"}
    return [
        f"{found[size].variant.told}, {told[kind]} against without: "
        f"{shown(relative(found[f'{size}-{kind}'].test(), found[size].test()), ' %', '+')}."
        for kind in told
        for size in ("small", "large")
        if f"{size}-{kind}" in found
    ]


def faster_and_smaller(task: str, found: Rows) -> list[str]:
    """Study D, by rows of all seeds alone: the best of many single seeds would be the luckiest one."""
    control, dense = control_of(task), found["dense"]
    int8, whole = dense.latency("dense-int8"), dense.bytes("dense")
    points = [(mean, row.variant.told, form, row) for row in found.values() for form in row.forms
              if len(row.file(form)) == len(SEEDS) and math.isfinite(mean := _mean(row, form))]  # fmt: skip
    near = [
        (row.bytes(form) or math.inf, told, form)
        for mean, told, form, row in points
        if control and mean <= NEAR * statistics.fmean(control.values())
    ]
    share = f"{min(near)[0] / whole:.1%} of the dense bytes ({min(near)[1]}, {min(near)[2]})" if near and whole else ""
    least = share or ("no file" if points and control else NOT_RUN)
    return [
        *_faster([(mean, f"{told}, {form}", form, row.latency(form)) for mean, told, form, row in points], int8),
        f"Smallest within {NEAR - 1:.0%} of the control: {least}; asked for: at most {LEAST_BYTES:.0%}.",
    ]


def _faster(points: list[tuple[float, str, str, float | None]], int8: float | None) -> list[str]:
    """Each dense model that is as fast as dense int8, against the best sparse one that is as fast as itself."""
    if int8 is None:
        return [f"As fast as dense int8: {NOT_RUN}."]
    timed = [(us, mean, told, form) for mean, told, form, us in points if us is not None and us <= int8]
    sparse = [point for point in timed if not point[3].startswith("dense")]
    lines = []
    for us, mean, told, _ in sorted(set(timed) - set(sparse), reverse=True):
        best = min(((figure, name) for at, figure, name, _ in sparse if at <= us), default=None)
        found = f"{best[0]:.4g} ({best[1]})" if best else "none"
        lines.append(f"As fast as {told} ({us / 1000:.2f} ms), the best sparse: {found}; asked for: below {mean:.4g}.")
    return lines


def _below(row: Row, other: Row, measure: Callable[[float], float] = float) -> str:
    """How much lower, seed by seed."""
    return shown([-each for each in relative(row.test(), other.test(), measure)], " %")


def _mean(row: Row, form: str) -> float:
    values = list(row.file(form).values())  # type: ignore[arg-type]
    return statistics.fmean(values) if values else math.inf


ANSWERS: Mapping[str, Callable[[str, Rows], list[str]]] = {
    "A": large_sparse_against_small_dense,
    "B": gradual_against_hard,
    "C": with_and_without_a_teacher,
    "D": faster_and_smaller,
}
