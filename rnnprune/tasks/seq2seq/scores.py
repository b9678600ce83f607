"""How near the texts that were given come to the references: error rates in percent, or BLEU and chrF.

Of several references of one text the best counts: for the error rates the one with the fewest edits, for BLEU and chrF
as sacrebleu counts them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from rnnprune.errors import UsageError
from rnnprune.tasks.options import PairMetric

References = Sequence[Sequence[str]]  # of every text one or several


def require_scorer(metric: PairMetric) -> None:
    """Raise UsageError, before any work is spent, when the library that computes the metric is not installed."""
    if metric == "BLEU":
        _sacrebleu()


def score(metric: PairMetric, given: Sequence[str], references: References) -> dict[str, float]:
    """The figure that the metric names, and those that go with it.

    CER: edits in percent of the references' characters. WER: of their words, those between white space. SER: texts with
    any edit, in percent. BLEU, chrF: of the whole corpus, as sacrebleu computes them by default.
    """
    if metric == "BLEU":
        return _bleu_and_chrf(given, references)
    cut = list if metric == "CER" else str.split
    edits = length = wrong = 0
    for text, targets in zip(given, references, strict=True):
        fewest, size = min((edit_distance(cut(text), cut(target)), len(cut(target))) for target in targets)
        edits, length, wrong = edits + fewest, length + size, wrong + (fewest > 0)
    return {metric: 100 * edits / length, "SER": 100 * wrong / len(given)}


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Insertions, deletions and substitutions from a to b (Levenshtein), keeping one row of the table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _bleu_and_chrf(given: Sequence[str], references: References) -> dict[str, float]:
    sacrebleu = _sacrebleu()
    streams = [list(stream) for stream in zip_longest(*references)]  # the first reference of each, the second or None
    return {
        "BLEU": sacrebleu.corpus_bleu(list(given), streams).score,
        "chrF": sacrebleu.corpus_chrf(list(given), streams).score,
    }


def _sacrebleu() -> Any:
    try:
        return importlib.import_module("sacrebleu")
    except ImportError as error:
        raise UsageError(
            "BLEU and chrF are computed by sacrebleu, which is not installed; pip install 'rnnprune[translation]', "
            "or choose the metric CER or WER"
        ) from error
