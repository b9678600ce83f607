"""Error rates against slow definitions, BLEU and chrF against sacrebleu's own documentation."""

import sys
from functools import cache

import numpy as np
import pytest

from rnnprune.errors import UsageError
from rnnprune.tasks.seq2seq.scores import edit_distance, require_scorer, score


def slow_distance(a: str, b: str) -> int:
    """The definition, without a table."""

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return distance(len(a), len(b))


def test_edit_distance_is_levenshteins():
    assert edit_distance("kitten", "sitting") == 3
    random = np.random.default_rng(0)
    for _ in range(50):
        a, b = ("".join(random.choice(list("abc"), random.integers(0, 9))) for _ in range(2))
        assert edit_distance(a, b) == slow_distance(a, b)


@pytest.mark.parametrize(
    ("metric", "given", "references", "expected"),
    [
        ("CER", ["abc", "x"], [["abd"], ["x"]], {"CER": 25.0, "SER": 50.0}),
        ("CER", ["abc"], [["xyz", "abcd", "ab"]], {"CER": 50.0, "SER": 100.0}),  # both one edit away: the shorter
        ("CER", ["abc"], [["xyz", "abc"]], {"CER": 0.0, "SER": 0.0}),
        ("WER", ["AH0 B", "B"], [["AH0 B IY1"], ["B"]], {"WER": 25.0, "SER": 50.0}),
        ("WER", ["", "a b"], [["a"], ["a  b"]], {"WER": 100 / 3, "SER": 50.0}),
    ],
)
def test_error_rates(metric, given, references, expected):
    assert score(metric, given, references) == pytest.approx(expected)


def test_bleu_and_chrf_are_those_of_sacrebleus_manual():
    pytest.importorskip("sacrebleu", reason="the extra `translation` is not installed")
    given = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    first = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    second = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    found = score("BLEU", given, list(zip(first, second, strict=True)))
    assert found == pytest.approx({"BLEU": 48.53, "chrF": 59.73}, abs=0.005)


def test_a_text_may_have_fewer_references_than_another():
    sacrebleu = pytest.importorskip("sacrebleu", reason="the extra `translation` is not installed")
    given = ["the cat sat on the mat", "a dog ran over the road"]
    found = score("BLEU", given, [["the cat sat on a mat"], ["the dog ran over a road", "a dog ran over this road"]])
    streams = [["the cat sat on a mat", "the dog ran over a road"], [None, "a dog ran over this road"]]
    assert found["BLEU"] == sacrebleu.corpus_bleu(given, streams).score
    assert found["BLEU"] > sacrebleu.corpus_bleu(given, streams[:1]).score
    assert found["chrF"] == sacrebleu.corpus_chrf(given, streams).score


def test_a_missing_library_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    require_scorer("CER")
    with pytest.raises(UsageError, match=r"pip install 'rnnprune\[translation\]', or choose the metric CER or WER"):
        require_scorer("BLEU")
