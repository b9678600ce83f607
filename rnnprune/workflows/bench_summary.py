"""A benchmark in one line: what sparse gains on the work that matters most, and where it loses."""

from __future__ import annotations

from rnnprune.workflows.bench_rows import Benchmark, Case, Row, how, what

DENSE, MOST_NAMED = "torch-dense-fp32", 3


def summary(result: Benchmark) -> str:
    """The largest layer as a sequence (else the largest matrix) speaks for all; the losing cases follow by name."""
    best = result.best_sparse()
    if not best:
        return "no sparse engine ran with the right result"
    size = {row.case: row.nbytes for row in result.rows if row.engine == DENSE}

    def weight(row: Row) -> tuple[bool, bool, int]:
        return row.case.op != "matvec", row.case.mode == "sequence", size.get(row.case, 0)

    return "; ".join([_gain(result, max(best, key=weight)), *_losses(result, best)])


def _gain(result: Benchmark, row: Row) -> str:
    dense = result.best_dense(row).engine if row.case.device == "cuda" else "torch dense fp32"
    rivals = ((result.speedup(row), dense), (row.vs_int8, "torch dynamic int8"), (row.vs_csr, "torch.sparse"))
    ratios = [f"{ratio:.2g}x {rival}" for ratio, rival in rivals if ratio is not None and rival not in row.engine]
    return f"{row.engine}: {', '.join(ratios)} ({_brief(row.case)}){_doubt(result, row)}"


def _doubt(result: Benchmark, row: Row) -> str:
    noisy = row.is_noisy or any(check.case == row.case and check.verdict != "equal" for check in result.same_again)
    return ", too noisy to trust" if noisy else ""


def _losses(result: Benchmark, best: list[Row]) -> list[str]:
    slower = {
        "dense": [(result.speedup(row), row) for row in best if result.speedup(row) < 1],
        "dynamic int8": [(row.vs_int8, row) for row in best if row.vs_int8 is not None and row.vs_int8 < 1],
    }
    lines = []
    for rival, rows in slower.items():
        if rows:
            named = "; ".join(f"{_brief(row.case)} {ratio:.2f}x ({row.engine})" for ratio, row in rows[:MOST_NAMED])
            more = ", ..." if len(rows) > MOST_NAMED else ""
            lines.append(
                f"every sparse engine is slower than {rival} in {len(rows)} of {len(best)} cases: {named}{more}"
            )
    return lines or [f"slower than dense in none of {len(best)} cases"]


def _brief(case: Case) -> str:
    return f"{what(case)}, {how(case).removesuffix(', weights from cache')}"
