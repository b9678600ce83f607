"""The tables of docs/benchmarks.md, in Markdown, from the answers of `rnnprune bench --json`.

`answers`: name of a measurement -> its answers, one for each run; a measurement without an answer leaves a row that
says so. In a cell the runs stand in order, `1.9, 2.1`; `~` marks a figure whose rounds lie too far apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

DENSE, INT8, CSR, ONNX = "torch-dense-fp32", "torch-dense-int8", "torch-csr", "onnxruntime-fp32"
RIVALS = {
    DENSE: "against dense fp32",
    CSR: "against torch.sparse",
    INT8: "against dynamic int8",
    ONNX: "against ONNX Runtime",
}
CASE = ("op", "shape", "sparsity", "block", "batch", "steps", "threads", "weights")
MISSING = "not measured"
LARGEST_ERROR = 1e-6

Row = Mapping[str, Any]
Answers = Mapping[str, list[Any]]


class Aim(NamedTuple):
    """A ratio asked for, and the least that still counts."""

    wanted: float
    least: float | None = None

    @property
    def text(self) -> str:
        return f"{self.wanted:g}" + (f" (at least {self.least:g})" if self.least else "")


class Goal(NamedTuple):
    """A row of the table: which rows of which measurement, and what each rival is asked for (None: only shown)."""

    case: str
    measurement: str
    dense: Aim | None = None
    csr: Aim | None = None
    int8: Aim | None = None
    onnx: Aim | None = None
    threads: int = 1
    batch: int = 1
    dtype: str = "fp32"
    share: float | None = None  # of the dense fp32 bytes


GOALS = (
    Goal("1760x1760, batch 1, in cache", "matrix-1760", Aim(4.2, 3.5), Aim(1.9, 1.75), Aim(1.9)),
    Goal("1760x1760, batch 1, from memory", "matrix-1760-memory", Aim(5.9), Aim(1.5)),
    Goal("1760x1760, batch 16", "matrix-1760-batch-16", Aim(8.5, 7.8), Aim(2.2), batch=16),
    Goal("3072x3072, 95 %, batch 1", "matrix-3072", Aim(15), Aim(1.8)),
    Goal("1760x1760, blocks 16x1, batch 1", "blocks-16x1", Aim(10), Aim(4.3), Aim(4.5)),
    Goal("1760x1760, blocks 8x4, batch 1", "blocks-8x4", Aim(10), Aim(4.3), Aim(4.5)),
    Goal("LSTM 1024, input 512, batch 1", "lstm-1024", Aim(3.8), None, Aim(1.4)),
    Goal("LSTM 1024, input 512, batch 1", "lstm-1024", Aim(3.8), None, Aim(1.4), threads=2),
    Goal("LSTM 1024, input 512, batch 8", "lstm-1024-batch-8", Aim(5.5), None, Aim(2.2), batch=8),
    Goal("LSTM 1024, input 512, batch 8", "lstm-1024-batch-8", Aim(4.9), None, Aim(2.2), threads=2, batch=8),
    Goal("GRU 1760, batch 1", "gru-1760", Aim(7.5), None, Aim(1.5)),
    Goal("GRU 1760, batch 1", "gru-1760-2-threads", Aim(13), None, Aim(1.7), Aim(5.5), threads=2),
    Goal("LSTM 256, batch 1", "lstm-256", Aim(3), None, Aim(2.5)),
    Goal("LSTM 256, batch 1", "lstm-256", Aim(3.3), None, Aim(2.5), threads=2),
    Goal("LSTM 1024, blocks 16x1, batch 1", "lstm-1024-blocks", Aim(9), None, Aim(3.5)),
    Goal("LSTM 1024, blocks 16x1, batch 1", "lstm-1024-blocks", Aim(9), None, Aim(3.5), threads=2),
    Goal("GRU 1760, blocks 16x1, batch 1", "gru-1760-blocks", Aim(9), None, Aim(3.5)),
    Goal("GRU 1760, blocks 16x1, batch 1", "gru-1760-blocks-2-threads", Aim(9), None, Aim(3.5), threads=2),
    Goal("1760x1760, int8 blocks 16x1, from memory", "blocks-int8-memory", int8=Aim(6), dtype="int8", share=0.032),
)
GOAL_COLUMNS = (
    *("case", "threads", "engine", "us", *RIVALS.values()),
    *("of bound", "error", "bytes of dense fp32", "dense against itself (spread)"),
)


def all_tables(answers: Answers, commands: Mapping[str, str]) -> dict[str, str]:
    """Name of a block in the page -> its Markdown."""
    return {
        "machine": machine(answers),
        "goals": goals(answers),
        "commands": "\n".join(f"    rnnprune bench {flags}" for flags in commands.values()),
        "int8": int8_errors(answers),
        "paper": paper(answers),
        "break-even": break_even(answers),
        "losing": losing(answers),
    }


def goals(answers: Answers) -> str:
    """Reached / asked for, of the fastest native engine with the right kind of values; missed ones in bold."""
    return table(GOAL_COLUMNS, [_goal_cells(goal, answers.get(goal.measurement, [])) for goal in GOALS])


def _goal_cells(goal: Goal, runs: list[Any]) -> list[str]:
    found = next((each for each in native_cases(runs, goal.dtype) if _fits(goal, each[0].row)), None)
    if found is None:
        return [goal.case, str(goal.threads), MISSING, *[""] * (len(GOAL_COLUMNS) - 3)]
    aims = {DENSE: goal.dense, CSR: goal.csr, INT8: goal.int8, ONNX: goal.onnx}
    error, share = max(each.row["max_error"] for each in found), max(each.share for each in found)
    return [
        goal.case,
        str(goal.threads),
        engines(found),
        times(found),
        *(reached(found, rival, aim) for rival, aim in aims.items()),
        bounds(found),
        bold(f"{error:.1e}", goal.dtype == "fp32" and error > LARGEST_ERROR),
        bold(f"{share:.1%} / {goal.share:.1%}", share > goal.share) if goal.share else f"{share:.1%}",
        ", ".join(f"{each.check['ratio']:.2f} ({each.check['spread']:.0%})" for each in found),
    ]


def _fits(goal: Goal, row: Row) -> bool:
    return (row["threads"], row["batch"]) == (goal.threads, goal.batch) and row["mode"] != "step"


def is_missed(goal: Goal, answers: Answers) -> bool:
    """Whether its row has anything in bold."""
    return any(cell.startswith("**") for cell in _goal_cells(goal, answers.get(goal.measurement, [])))


def reached(found: list[Found], rival: str, aim: Aim | None = None) -> str:
    """How many times as fast as this rival, in every run, and what was asked for."""
    ratios = versus(found, rival)
    if aim is None or not ratios:
        return f"{MISSING} / {aim.text}" if aim else shown(ratios)
    missed = min(each.value for each in ratios) < (aim.least or aim.wanted)
    return bold(f"{shown(ratios)} / {aim.text}", missed)


def int8_errors(answers: Answers) -> str:
    """Blocks with int8 values beside torch's own int8, for every measurement of blocks."""
    columns = ("case", "engine", "error", "error of torch's int8", RIVALS[INT8], RIVALS[DENSE])
    lines = []
    for name in filter(lambda name: "blocks" in name, answers):
        for found in native_cases(answers[name], "int8"):
            errors = [max(each.row["max_error"] for each in found)]
            errors += [max(row["max_error"] for each in found if (row := named(each.group, INT8)) is not None)]
            cells = [title(found[0].row), engines(found), *(f"{error:.1e}" for error in errors)]
            lines.append([*cells, reached(found, INT8), reached(found, DENSE)])
    return table(columns, lines)


def paper(answers: Answers) -> str:
    """Every matrix of `--shapes paper`: the fastest native engine against the rivals."""
    rivals = [rival for rival in RIVALS if rival != ONNX]
    lines = []
    for found in native_cases(answers.get("paper", []), "fp32"):
        row = found[0].row
        cells = [row["shape"], f"{row['sparsity']:.0%}", str(row["batch"]), engines(found), times(found)]
        lines.append([*cells, *(reached(found, rival) for rival in rivals), bounds(found)])
    columns = ("matrix", "zeros", "batch", "engine", "us", *(RIVALS[rival] for rival in rivals), "of bound")
    return table(columns, lines)


def break_even(answers: Answers) -> str:
    """The share of zeros from which native beats the dense rivals."""
    found: dict[tuple[str, ...], list[str]] = {}
    for answer in answers.get("break-even", []):
        for each in answer["break_even"]:
            zeros = f"{each['sparsity']:.0%}" if "sparsity" in each else "never"
            case = (what(each), how(each), RIVALS[each["rival"]])
            found.setdefault(case, []).append(f"{zeros} ({each['engine'].partition(':')[2]})")
    lines = [[*case, ", ".join(zeros)] for case, zeros in found.items()]
    return table(("matrix or layer", "how", "rival", "zeros from which native is as fast"), lines)


def losing(answers: Answers) -> str:
    """Every case on this page in which the fastest native engine with fp32 values is slower than a rival."""
    lines = []
    for name in answers:
        for found in native_cases(answers[name], "fp32") if name != "break-even" else ():
            for rival, words in RIVALS.items():
                ratios = versus(found, rival)
                if ratios and min(each.value for each in ratios) < 1:
                    lines.append([title(found[0].row), engines(found), f"{words}: {shown(ratios)}"])
    return table(("case", "engine", "slower"), lines) if lines or not any(answers.values()) else "(none)"


def machine(answers: Answers) -> str:
    """The processor, torch, and the probe of one core."""
    answer = next((runs[0] for runs in answers.values() if runs), None)
    if answer is None:
        return f"The machine: {MISSING}."
    about, probe = answer["machine"], answer["machine"]["probe"][0]
    rates = ", ".join(f"{level} {rate:.0f}" for level, rate in probe["gbytes_per_core"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, torch {about['torch']}. Probe of one core: "
        f"{probe['gloads_per_core']:.1f} vector loads per ns; GB/s from {rates}."
    )


# Rows


class Found(NamedTuple):
    """A native row, the rows of its case in the same run, and dense against itself there."""

    row: Row
    group: list[Row]
    check: Row

    @property
    def share(self) -> float:
        """Of the bytes of the dense weights."""
        dense = named(self.group, DENSE)
        assert dense is not None, "dense runs in every case"
        return float(self.row["bytes"] / dense["bytes"])


class Ratio(NamedTuple):
    """Times as fast as a rival, and whether one of the two timings is too noisy to trust."""

    value: float
    noisy: bool


def native_cases(runs: list[Any], dtype: str) -> Iterator[list[Found]]:
    """For every case the fastest native row of every run, with values of this type and the right result."""
    cases: dict[tuple[Any, ...], list[Found]] = {}
    for answer in runs:
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in answer["rows"]:
            groups.setdefault(key_of(row), []).append(row)
        checks = {key_of(check): check for check in answer["same_again"]}
        for key, group in groups.items():
            fit = [row for row in group if row["engine"].startswith("native:") and row["dtype"] == dtype]
            if fit := [row for row in fit if not row["suspect"]]:
                best = min(fit, key=lambda row: float(row["median_us"]))
                cases.setdefault(key, []).append(Found(best, group, checks[key]))
    yield from cases.values()


def key_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in CASE)


def named(group: list[Row], engine: str) -> Row | None:
    return next((row for row in group if row["engine"] == engine), None)


def versus(found: list[Found], rival: str) -> list[Ratio]:
    """One for every run in which the rival ran."""
    pairs = [(each.row, other) for each in found if (other := named(each.group, rival)) is not None]
    return [Ratio(other["median_us"] / row["median_us"], row["noisy"] or other["noisy"]) for row, other in pairs]


# Words


def title(row: Row) -> str:
    """`lstm 512->1024, 90% zeros in blocks 16x1, sequence of 100, batch 1, 2 threads`."""
    zeros = f"{row['sparsity']:.0%} zeros" + ("" if row["block"] == "1x1" else f" in blocks {row['block']}")
    return f"{what(row)}, {zeros}, {how(row)}"


def what(row: Row) -> str:
    return row["shape"] if row["op"] == "matvec" else f"{row['op'].upper()} {row['shape']}"


def how(row: Row) -> str:
    steps = [] if row["op"] == "matvec" else ["one step" if row["steps"] == 1 else f"sequence of {row['steps']}"]
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    memory = ["from memory"] if row["weights"] == "memory" else []
    return ", ".join([*steps, f"batch {row['batch']}", threads, *memory])


def engines(found: list[Found]) -> str:
    """What ran, without `native:`; both where the runs differ."""
    return " / ".join(dict.fromkeys(each.row["engine"].partition(":")[2] for each in found))


def times(found: list[Found]) -> str:
    return ", ".join(f"{each.row['median_us']:,.{0 if each.row['median_us'] >= 100 else 1}f}" for each in found)


def bounds(found: list[Found]) -> str:
    """`47%, 45%: loads`."""
    shares = ", ".join(f"{each.row['bound_us'] / each.row['median_us']:.0%}" for each in found)
    return f"{shares}: {' / '.join(dict.fromkeys(each.row['bound_by'] for each in found))}"


def shown(ratios: list[Ratio]) -> str:
    return ", ".join(f"{value:.{1 if value >= 10 else 2}f}{'~' if noisy else ''}" for value, noisy in ratios)


def bold(text: str, missed: bool) -> str:
    return f"**{text}**" if missed else text


def table(columns: tuple[str, ...], lines: list[list[str]]) -> str:
    if not lines:
        return f"({MISSING})"
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(columns), ["---"] * len(columns), *lines])
