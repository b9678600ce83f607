"""Figures of a labelling: accuracy, macro F1, and for two labels the area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


def accuracy(told: Labels, true: Labels) -> float:
    """The share of labels that are right."""
    return float((told == true).mean())


def macro_f1(told: Labels, true: Labels) -> float:
    """F1 = 2 TP / (2 TP + FP + FN), averaged over every label that was told or is true, rare ones as much as others."""
    count = int(max(told.max(), true.max())) + 1
    hits = np.bincount(true[told == true], minlength=count)
    occurrences = np.bincount(told, minlength=count) + np.bincount(true, minlength=count)  # 2 TP + FP + FN
    present = occurrences > 0
    return float((2 * hits[present] / occurrences[present]).mean())


def area_under_curve(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The share of pairs of a positive and a negative that the scores put in order, an equal pair counting half.

    (R - P (P + 1) / 2) / (P N), with R the sum of the positives' ranks, equal scores sharing theirs (Mann and Whitney,
    1947). NaN where one of the two kinds is missing.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of the equal scores at each place, their mean rank
    return float((ranks[place][positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
