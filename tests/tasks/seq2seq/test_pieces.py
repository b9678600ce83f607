"""Byte pair encoding against the paper's example and a slow Algorithm 1."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from rnnprune.tasks.seq2seq.pieces import WORD, cut, joined, learn_pieces, words_of

PAPER = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3  # Sennrich et al., figure 1


def slow_pieces(texts: list[str], count: int) -> tuple[str, ...]:
    """Algorithm 1 as it stands: all pairs are counted anew for every join."""
    words = Counter(tuple(word) for text in texts for word in words_of(text))
    pieces = sorted({character for word in words for character in word})
    while len(pieces) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        if "".join(best) not in pieces:
            pieces.append("".join(best))
        words = Counter({tuple(joined(list(word), best)): times for word, times in words.items()})
    return tuple(pieces)


def test_the_papers_words_are_joined_in_the_papers_order():
    pieces = learn_pieces(PAPER, 11 + 6)
    assert pieces[:11] == tuple(sorted(set("lowernwstid" + WORD)))
    assert pieces[11:] == ("es", "est", "lo", "low", WORD + "low", "ew")
    rank = {piece: place for place, piece in enumerate(pieces)}
    assert cut(WORD + "lowest", rank) == [WORD + "low", "est"]
    assert cut(WORD + "newer", rank) == [WORD, "n", "ew", "e", "r"]


@pytest.mark.parametrize("seed", range(5))
def test_counting_as_it_goes_equals_counting_anew(seed):
    random = np.random.default_rng(seed)
    texts = ["".join(random.choice(list("aab c"), 30)) for _ in range(20)]
    for count in (3, 10, 40, 10_000):
        assert learn_pieces(texts, count) == slow_pieces(texts, count)


def test_what_was_trained_on_is_cut_into_what_was_learned_and_nothing_is_lost():
    pieces = learn_pieces(PAPER, 1000)
    rank = {piece: place for place, piece in enumerate(pieces)}
    assert [cut(word, rank) for word in words_of("low newest widest")] == [
        [WORD + w] for w in ["low", "newest", "widest"]
    ]
    for word in words_of("owl newt straße 日本 aaa"):
        assert "".join(cut(word, rank)) == word


@pytest.mark.parametrize(
    ("symbols", "expected"), [("aaa", ["aa", "a"]), ("aaaa", ["aa", "aa"]), ("baab", ["b", "aa", "b"])]
)
def test_pairs_are_joined_from_left_to_right(symbols, expected):
    assert joined(list(symbols), ("a", "a")) == expected
