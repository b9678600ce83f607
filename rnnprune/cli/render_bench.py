"""A benchmark for people: one table per case, remarks, and bars in plain text for `--plot`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from rnnprune.cli import render
from rnnprune.workflows.bench_rows import (
    NOISY,
    Benchmark,
    BreakEven,
    Case,
    Row,
    SameAgain,
    Verdict,
    by_case,
    describe,
    how,
    what,
)
from rnnprune.workflows.bench_summary import summary
from rnnprune.workflows.published import published_for

BAR = 40
AGAIN = "measure again on a quiet machine"
VERDICTS: Mapping[Verdict, str] = {
    "equal": "no difference",
    "different": "more than its spread: trust no ratio as near to 1",
    "noisy": f"too noisy to trust: {AGAIN}",
}
COLUMNS = ("engine", "median us", "quartiles", "x dense", "x csr", "x int8", "max error", "weights", "of bound")
CUDA_COLUMNS = tuple("x best dense" if column == "x int8" else column for column in COLUMNS)


def show(result: Benchmark, json: bool, plot: bool) -> None:
    """Print one JSON object, or tables (and bars)."""
    if json:
        render.show(result, json=True)
        return
    console = render.console()
    checks = {check.case: check for check in result.same_again}
    for case, rows in by_case(result.rows).items():
        print(describe(case))
        console.print(_table(rows, result))
        for line in _published(case):
            print(f"  {line}")
        if case in checks:
            print(f"  {_same_again(checks[case])}")
        if noisy := [f"{row.engine} ({row.timing.spread:.0%})" for row in rows if row.is_noisy]:
            print(f"  noisy, quartiles more than {NOISY:.0%} of the median apart: {', '.join(noisy)}; {AGAIN}")
        if plot:
            print(bars(rows))
        print()
    for found in result.break_even:
        print(_break_even(found))
    for each in result.failed:
        print(f"failed: {each.engine}, {describe(each.case)}: {each.error}")
    for remark in result.left_out:
        print(f"left out: {remark}")
    _explain(result)


def bars(rows: list[Row]) -> str:
    """One line per engine; the longest bar is the slowest."""
    longest, width = max(row.timing.median_us for row in rows), max(len(row.engine) for row in rows)
    lines = []
    for row in rows:
        length = max(1, round(BAR * row.timing.median_us / longest))
        lines.append(f"  {row.engine:<{width}} {'#' * length:<{BAR}} {row.timing.median_us:,.1f} us")
    return "\n".join(lines)


def _table(rows: list[Row], result: Benchmark) -> Table:
    table, on_cuda = Table(), rows[0].case.device == "cuda"
    for number, column in enumerate(CUDA_COLUMNS if on_cuda else COLUMNS):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        timing, share = row.timing, f"{row.bound.us / row.timing.median_us:.0%} {row.bound.by}" if row.bound else ""
        third = result.best_dense(row).ratio if on_cuda else row.vs_int8
        ratios = ("" if ratio is None else f"{ratio:.2f}" for ratio in (row.vs_dense, row.vs_csr, third))
        error = f"{row.max_error:.1e}{' !' if row.is_suspect else ''}"
        size = render.human_bytes(row.nbytes)
        table.add_row(row.engine, f"{timing.median_us:,.1f}", f"{timing.iqr_us:,.1f}", *ratios, error, size, share)
    return table


def _published(case: Case) -> list[str]:
    known = published_for(case.shape, case.sparsity, case.batch) if case.device == "cuda" else None
    return [f"published: {known.ratio:g} times dense ({known.source})"] if known else []


def _same_again(check: SameAgain) -> str:
    return f"dense against dense: {check.ratio:.2f}, {VERDICTS[check.verdict]}; spread {check.spread:.0%}"


def _break_even(found: BreakEven) -> str:
    where = f"{what(found.case)}, {how(found.case)}"
    if found.case.block != "1x1":
        where += f", blocks {found.case.block}"
    if found.sparsity is None:
        return f"break-even: {where}: {found.engine} is slower than {found.rival} even at {found.highest:.0%} zeros"
    zeros = f"from {found.sparsity:.0%} zeros" if found.sparsity else "even without zeros"
    return f"break-even: {where}: {found.engine} is as fast as {found.rival} {zeros}"


def _explain(result: Benchmark) -> None:
    machine = result.machine
    for probe in machine.get("probe", []):
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in probe["gbytes_per_core"].items())
        loads = f"{probe['gloads_per_core']:.1f} vector loads per ns"
        print(f"probe of one core, {probe['threads']} at work: {loads}; GB/s from {rates}")
    if (gpu := machine.get("gpu_probe")) is not None:
        rates = f"GB/s from L2 {gpu['gbytes_l2']:.0f}, memory {gpu['gbytes_memory']:.0f}"
        print(f"probe: {gpu['launch_us']:.2f} us per launch in a graph; {rates}")
    if any(row.is_suspect for row in result.rows):
        print("! farther from float64 than float32 rounding explains")
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    print(f"{where}, torch {machine['torch']}; x dense, x csr, x int8: above 1 is faster than that rival")
    print(summary(result))
