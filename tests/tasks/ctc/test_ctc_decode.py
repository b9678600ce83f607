"""Decoding against a sum over every path there is."""

from collections import defaultdict
from itertools import product

import pytest
import torch

from rnnprune.tasks.ctc.decode import beam_search, collapse, greedy


def texts_by_probability(scores: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Every path, spelled by a plain loop, and the probabilities of those that spell the same added up."""
    probabilities = scores.double().softmax(1)
    total: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(scores.shape[1]), repeat=scores.shape[0]):
        text = [label for i, label in enumerate(path) if label and (i == 0 or path[i - 1] != label)]
        total[tuple(text)] += float(torch.stack([probabilities[i, label] for i, label in enumerate(path)]).prod())
    return total


@pytest.mark.parametrize(
    ("path", "text"),
    [([], ()), ([0, 0], ()), ([1, 1, 0, 1], (1, 1)), ([0, 2, 2, 3, 0, 0, 3, 2], (2, 3, 3, 2))],
)
def test_runs_become_one_and_blanks_go(path, text):
    assert collapse(path) == text
    if path:
        assert greedy(torch.nn.functional.one_hot(torch.tensor(path), 4).float()) == text


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("frames", "labels"), [(1, 3), (4, 3), (5, 4), (7, 2)])
def test_a_wide_beam_finds_the_most_probable_text(seed, frames, labels):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(frames, labels, generator=generator)
    expected = texts_by_probability(scores)
    found = beam_search(scores, width=10_000, least=0.0)
    assert expected[found] == pytest.approx(max(expected.values()), rel=1e-12)


def test_the_beam_finds_what_the_best_path_misses():
    scores = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # blank blank 0.36; the three paths that spell `1` 0.64
    assert greedy(scores) == ()
    assert beam_search(scores, width=2) == (1,)


def test_long_utterances_do_not_run_into_zero_and_certain_frames_are_followed():
    path = [1, 0, 2, 2, 1, 0] * 300
    scores = 20.0 * torch.nn.functional.one_hot(torch.tensor(path), 30)
    assert beam_search(scores, width=4) == greedy(scores) == (1, 2, 1) * 300
    flat = torch.zeros(3, 5000)  # every label below the least that is followed
    assert len(beam_search(flat, width=2)) <= 3
