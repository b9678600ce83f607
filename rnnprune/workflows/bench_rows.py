"""The results of a benchmark: rows, the A/A check, break-even points, and the goal they may be held to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rnnprune.errors import GoalMissed, printable
from rnnprune.workflows.bench_bound import Bound
from rnnprune.workflows.published import published_for
from rnnprune.workflows.timing import Timing

LARGEST_FP32_ERROR = 1e-5  # of the largest output; a row above it is marked
NOISY = 0.25  # distance between the quartiles over the median, from which a timing is not to be trusted
SPARSE = ("torch-csr", "scipy-csr", "native", "triton")
DENSE = "torch-dense"

Verdict = Literal["equal", "different", "noisy"]


@dataclass(frozen=True)
class Case:
    """The work that the rows of one group share. `weights`: from `cache`, or from `memory` in every call.

    `name`: of the matrix or layer in its model, "" for random weights; `alike`: of those that it stands for.
    """

    op: str
    shape: str
    sparsity: float
    block: str
    batch: int
    steps: int
    threads: int
    device: str = "cpu"
    weights: str = "cache"
    name: str = ""
    alike: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """`product` of a matrix, `sequence`, or `step`: one call per time step."""
        return "product" if self.op == "matvec" else "step" if self.steps == 1 else "sequence"


@dataclass(frozen=True)
class Row:
    """One engine on one case. `engine` is what really ran; `max_error` is relative to the largest output in float64."""

    case: Case
    engine: str
    timing: Timing
    vs_dense: float
    vs_csr: float | None
    vs_int8: float | None
    max_error: float
    nbytes: int
    bound: Bound | None = None

    @property
    def dtype(self) -> str:
        """Of the weights."""
        return next((dtype for dtype in ("int8", "fp16", "bf16") if dtype in self.engine), "fp32")

    @property
    def is_suspect(self) -> bool:
        """Whether a float32 engine is farther from float64 than rounding explains."""
        exact = self.dtype == "fp32" and "tf32" not in self.engine
        return exact and not self.max_error <= LARGEST_FP32_ERROR

    @property
    def is_noisy(self) -> bool:
        """Whether its rounds lie too far apart for its ratios to mean much."""
        return self.timing.spread > NOISY

    @property
    def is_sparse(self) -> bool:
        """Whether the engine uses the zeros."""
        return self.engine.startswith(SPARSE)

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`, and more keys after it."""
        return {
            **asdict(self.case),
            "dtype": self.dtype,
            "engine": self.engine,
            **asdict(self.timing),
            "vs_dense": self.vs_dense,
            "max_error": self.max_error,
            "mode": self.case.mode,
            "suspect": self.is_suspect,
            "noisy": self.is_noisy,
            "vs_csr": self.vs_csr,
            "vs_int8": self.vs_int8,
            "bytes": self.nbytes,
            "bound_us": self.bound and self.bound.us,
            "bound_by": self.bound and self.bound.by,
        }


@dataclass(frozen=True)
class Failed:
    """An engine that could not run a case, and what it said."""

    case: Case
    engine: str
    error: str

    def to_json(self) -> dict[str, Any]:
        """One object of `failed`."""
        return {**asdict(self.case), "engine": self.engine, "error": self.error}


@dataclass(frozen=True)
class BestDense:
    """The fastest dense engine of a case, with weights as wide as a row's or wider, and how it compares."""

    engine: str
    ratio: float


@dataclass(frozen=True)
class SameAgain:
    """The dense engine against itself, in the same interleaving: what this machine calls equal."""

    case: Case
    first: Timing
    second: Timing

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.first.median_us / self.second.median_us

    @property
    def spread(self) -> float:
        """The wider distance between quartiles, relative to the median: smaller differences mean nothing."""
        return max(self.first.spread, self.second.spread)

    @property
    def verdict(self) -> Verdict:
        """`noisy` when the spread is too wide to judge by; else whether the medians lie within the spread."""
        if self.spread > NOISY:
            return "noisy"
        apart = abs(self.first.median_us - self.second.median_us)
        return "equal" if apart <= max(self.first.iqr_us, self.second.iqr_us) else "different"

    def to_json(self) -> dict[str, Any]:
        """One object of `same_again`."""
        return {**asdict(self.case), "ratio": self.ratio, "spread": self.spread, "verdict": self.verdict}


@dataclass(frozen=True)
class BreakEven:
    """The share of zeros from which an engine beats a dense rival. None: not even at `highest`."""

    case: Case
    engine: str
    rival: str
    sparsity: float | None
    highest: float

    def to_json(self) -> dict[str, Any]:
        """One object of `break_even`."""
        case = {key: value for key, value in asdict(self.case).items() if key != "sparsity"}
        return {**case, "engine": self.engine, "rival": self.rival, "sparsity": self.sparsity}


@dataclass(frozen=True)
class Benchmark:
    """All rows, the machine they were measured on, and what was left out with the reason. `path`: None for --shapes."""

    path: Path | None
    rows: tuple[Row, ...]
    machine: dict[str, Any]
    left_out: tuple[str, ...]
    same_again: tuple[SameAgain, ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    failed: tuple[Failed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "path": None if self.path is None else str(self.path),
            "machine": self.machine,
            "rows": [row.to_json() | self._cuda_json(row) for row in self.rows],
            "left_out": list(self.left_out),
            "same_again": [check.to_json() for check in self.same_again],
            "break_even": [found.to_json() for found in self.break_even],
            "failed": [each.to_json() for each in self.failed],
        }

    def best_dense(self, row: Row) -> BestDense:
        """For float32 weights among the dense engines of float32 and tf32, for narrower ones among all."""
        rivals = [
            each
            for each in self.rows
            if each.case == row.case and each.engine.startswith(DENSE) and (row.dtype != "fp32" or each.dtype == "fp32")
        ]
        best = min(rivals, key=lambda each: each.timing.median_us)
        return BestDense(best.engine, best.timing.median_us / row.timing.median_us)

    def _cuda_json(self, row: Row) -> dict[str, Any]:
        """On CUDA dense has many forms: the one to beat, and what others published for the same matrix."""
        if row.case.device != "cuda":
            return {}
        best, known = self.best_dense(row), published_for(row.case.shape, row.case.sparsity, row.case.batch)
        published = known and {"ratio": known.ratio, "source": known.source}
        return {"best_dense": best.engine, "vs_best_dense": best.ratio, "published": published}

    def best_sparse(self) -> list[Row]:
        """For every case the fastest engine that uses the zeros and computes the right thing."""
        best: dict[Case, Row] = {}
        for row in self.rows:
            known = best.get(row.case)
            if row.is_sparse and not row.is_suspect and (known is None or row.vs_dense > known.vs_dense):
                best[row.case] = row
        return list(best.values())

    def require_speedup(self, factor: float) -> None:
        """GoalMissed, naming the worst case, unless in every case the best sparse engine is this much faster."""
        worst = min(self.best_sparse(), key=self.speedup, default=None)
        if worst is None:
            raise GoalMissed(f"--min-speedup {factor:g}: no sparse engine ran with the right result")
        if self.speedup(worst) < factor:
            raise GoalMissed(
                f"--min-speedup {factor:g}: {describe(worst.case)}: {worst.engine}, the best sparse engine, "
                f"is {self.speedup(worst):.2f} times as fast as dense"
            )

    def speedup(self, row: Row) -> float:
        """Over dense; on CUDA over its best form."""
        return self.best_dense(row).ratio if row.case.device == "cuda" else row.vs_dense


def describe(case: Case) -> str:
    """`lstm 512->1024 (rnn layer 1 and 2 alike), 90.0% zeros, sequence of 100, batch 1, 2 threads`."""
    zeros = f"{case.sparsity:.1%} zeros" + ("" if case.block == "1x1" else f" in blocks {case.block}")
    return ", ".join([what(case), zeros, how(case)])


def what(case: Case) -> str:
    """`matvec 512x128 (encoder.weight_hh_l0 and 3 alike)`."""
    alike = f" and {len(case.alike)} alike" if case.alike else ""
    return f"{case.op} {case.shape}" + (f" ({printable(case.name)}{alike})" if case.name else "")


def how(case: Case) -> str:
    """`sequence of 100, batch 1, 2 threads, weights from cache`."""
    parts = [f"batch {case.batch}"]
    if case.mode != "product":
        parts.insert(0, "one step" if case.mode == "step" else f"sequence of {case.steps}")
    if case.device == "cpu":
        parts.append("1 thread" if case.threads == 1 else f"{case.threads} threads")
        parts.append(f"weights from {case.weights}")
    return ", ".join(parts)


def by_case(rows: Iterable[Row]) -> dict[Case, list[Row]]:
    """Rows in groups, in the order in which they came."""
    groups: dict[Case, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.case, []).append(row)
    return groups
