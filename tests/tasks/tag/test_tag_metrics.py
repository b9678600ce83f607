"""Accuracy, macro F1 and AUC against literals and against counting pair by pair."""

import math

import numpy as np
import pytest

from rnnprune.tasks.tag.metrics import accuracy, area_under_curve, macro_f1


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# scikit-learn's documented example of f1_score(average="macro") is the first row: 0.266...
@pytest.mark.parametrize(
    ("told", "true", "right", "f1"),
    [
        (labels(0, 2, 1, 0, 0, 1), labels(0, 1, 2, 0, 1, 2), 1 / 3, 0.8 / 3),
        (labels(1, 1, 1), labels(1, 1, 1), 1.0, 1.0),
        (labels(0, 0), labels(3, 3), 0.0, 0.0),
        (labels(0, 0, 0, 1), labels(0, 0, 1, 1), 0.75, (4 / 5 + 2 / 3) / 2),
        (labels(7, 0), labels(7, 7), 0.5, (2 / 3 + 0) / 2),  # labels 1 to 6 are neither told nor true
    ],
)
def test_accuracy_and_macro_f1(told, true, right, f1):
    assert accuracy(told, true) == pytest.approx(right)
    assert macro_f1(told, true) == pytest.approx(f1)


@pytest.mark.parametrize("levels", [2, 5, 1000])  # few levels: many equal scores
def test_auc_is_the_share_of_pairs_in_order(levels):
    random = np.random.default_rng(levels)
    scores = random.integers(levels, size=60).astype(np.float32)
    positive = random.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert area_under_curve(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auc_of_one_kind_alone_is_undefined():
    assert math.isnan(area_under_curve(np.array([1.0, 2.0]), np.array([True, True])))
