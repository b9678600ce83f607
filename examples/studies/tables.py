"""The tables of the pages, in Markdown, from the raw figures; what was not run says so."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from examples.studies import choice
from examples.studies.answers import ANSWERS
from examples.studies.cells import ORDER, Cell
from examples.studies.raw import read
from examples.studies.rows import Row, Rows, control_of, perplexity, relative, rows, shown
from examples.studies.runs import run_of
from examples.studies.tasks import TASKS
from examples.studies.variants import STUDIES


def of_study(study: str) -> str:
    """All that is generated on its page; no table of a task of which nothing was run."""
    parts, waiting = [], []
    for task in (task for of, task in ORDER if of == study):
        found = rows(study, task)
        if not any(row.stored if row.variant.forms else row.raws for row in found.values()):
            waiting.append(task)
            continue
        parts += [f"## {task}: {TASKS[task].told}", "", _test_split(task), ""]
        parts += [TABLES.get(study, general)(task, found), ""]
        parts += [*(f"- {line}" for line in ANSWERS[study](task, found)), ""] if study in ANSWERS else []
    parts += [f"Not run yet: {', '.join(waiting)}.", ""] if waiting else []
    return "\n".join([*parts, *_below(study)])


def _test_split(task: str) -> str:
    """What it holds; and the standard error of a figure that chance makes, which no spread over seeds shows."""
    line, counted, control = f"Test split: {TASKS[task].test}.", TASKS[task].counted, list(control_of(task).values())
    if not counted or not control:
        return line
    wrong = statistics.fmean(control) / 100
    error = 100 * math.sqrt(wrong * (1 - wrong) / counted)
    return f"{line} All seeds share it; another one as large would move {100 * wrong:.1f} by about {error:.1f}."


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *lines))


def general(task: str, found: Rows) -> str:
    """Weights left, rate, figure, and how much larger that is than the control's."""
    columns = ("", "weights left", "rate", f"{TASKS[task].shown}, test", "against the dense control")
    return table(columns, [_general(task, row) for row in found.values()])


def _general(task: str, row: Row) -> list[str]:
    return [row.variant.told, _count(row.of_any("nonzeros")), row.rate or "", shown(list(row.test().values())),
            _gap(row, control_of(task, row.variant.longer))]  # fmt: skip


def _gap(row: Row, control: Mapping[int, float]) -> str:
    found = relative(row.test(), control)
    return shown(found, " %", "+") if found else ""


def sizes(task: str, found: Rows) -> str:
    """Study A: the same, with the perplexity of a language model."""
    if task != "lm":
        return general(task, found)
    lines = [
        [*_general(task, row), shown([perplexity(bits) for bits in row.test().values()])] for row in found.values()
    ]
    columns = ("", "weights left", "rate", f"{TASKS[task].shown}, test", "against the dense control", "perplexity")
    return table(columns, lines)


def schedules(task: str, found: Rows) -> str:
    """Study E: where the plain threshold lands."""
    columns = ("", "rate", f"{TASKS[task].shown}, test", "against the first row", "threshold alone", "of the matrices")
    first = next(iter(found.values())).test()
    lines = []
    for row in found.values():
        landed = [raw["plain_sparsity"] for raw in row.raws.values() if "plain_sparsity" in raw]
        ranges = [raw["plain_range"] for raw in row.raws.values() if "plain_range" in raw]
        span = f"{min(low for low, _ in ranges):.0%} to {max(high for _, high in ranges):.0%}" if ranges else ""
        alone = shown([100 * share for share in landed], " %") if landed else ""
        lines.append(
            [row.variant.told, row.rate or "", shown(list(row.test().values())), _gap(row, first), alone, span]
        )
    return table(columns, lines)


def frontier(task: str, found: Rows) -> str:
    """Study D: metric, bytes and latency of every file."""
    columns = ("", "stored as", f"{TASKS[task].shown}, test", "against the dense control", "bytes", "of dense fp32",
               "ms", "of dense int8")  # fmt: skip
    return table(columns, [line for row in found.values() for line in _files(task, row, found["dense"])])


def _files(task: str, row: Row, dense: Row) -> list[list[str]]:
    lines = []
    for form in row.forms:
        values, size, us = row.file(form), row.bytes(form), row.latency(form)
        whole, int8 = dense.bytes("dense"), dense.latency("dense-int8")
        gaps = relative(values, control_of(task, row.variant.longer))
        lines.append([
            row.variant.told, form, shown(list(values.values())), shown(gaps, " %", "+") if gaps else "",
            _count(size), f"{size / whole:.1%}" if size and whole else "",
            f"{us / 1000:.2f}" if us else "", f"{us / int8:.2f}" if us and int8 else "",
        ])  # fmt: skip
    return lines


TABLES: Mapping[str, Callable[[str, Rows], str]] = {"A": sizes, "D": frontier, "E": schedules}


def _below(study: str) -> list[str]:
    """How it was made: rates, commands, machine, hours."""
    tuned = [line for of, task in ORDER if of == study for line in _tuning(study, task)]
    lines = ["## How it was made", ""]
    if tuned:
        columns = ("task", "tuned", "validation figure at each rate", "taken")
        lines += ["Validation figures of seed 0 at the rates that were tried:", "", table(columns, tuned), ""]
    lines += [_hours(study), "", *_commands(study)]
    return lines


def _tuning(study: str, task: str) -> list[list[str]]:
    lines = []
    for name, variant in STUDIES[study].items():
        cell = Cell(study, task, name, 0)
        if task not in variant.tasks or not choice.tunes(cell):
            continue
        figures = {float(rate): figure for rate, figure in choice.tried(cell).items() if figure is not None}
        told = [
            f"{rate:g}: {'diverged' if math.isinf(figure) else f'{figure:.4g}'}"
            for rate, figure in sorted(figures.items())
        ]
        if told:
            lines.append([task, variant.told, ", ".join(told), choice.chosen(cell) or ""])
    return lines


def _hours(study: str) -> str:
    raws = [raw for of, task in ORDER if of == study for row in rows(study, task).values() for raw in row.raws.values()]
    seconds = sum(raw.get("seconds", 0.0) for raw in raws)
    machines = sorted({raw["machine"] for raw in raws if "machine" in raw})
    if not machines:
        return "Nothing is measured yet."
    return (
        f"{len(raws)} fine-tunings in these tables, {seconds / 3600:.1f} hours of one thread each beside other work; "
        f"{'; '.join(machines)}."
    )


def _commands(study: str) -> list[str]:
    """One of every variant that was run: seed 0 of its first task."""
    lines = ["The commands, of seed 0; those of every run stand in its raw file:", ""]
    for name, variant in STUDIES[study].items():
        cell = Cell(study, variant.tasks[0], name, 0)
        rate = choice.chosen(cell)
        if rate is None or read(run_of(cell, rate)) is None:
            continue
        words = " ".join(run_of(cell, rate).commands()["finetune"])
        short = words.partition(" --threads")[0].replace(".cache/studies/", "").replace("/ckpt.pt", ".pt")
        lines.append(f"    rnnprune {short}")
    return [*lines, ""] if len(lines) > 2 else []


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"
