"""From scores of labels and frames to text: the best path, and prefix beam search.

Label 0 is the blank. A path names one label per frame; its text has runs of a label made one and blanks taken out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Float
from torch import Tensor

LEAST = 1e-3  # labels less probable than this are not followed up; the best of each frame always is


def collapse(path: Iterable[int]) -> tuple[int, ...]:
    """The labels that a path spells."""
    return tuple(label for label, _ in groupby(path) if label)


def greedy(scores: Float[Tensor, "frames labels"]) -> tuple[int, ...]:
    """What the most probable path spells."""
    return collapse(scores.argmax(1).tolist())


def beam_search(scores: Float[Tensor, "frames labels"], width: int, least: float = LEAST) -> tuple[int, ...]:
    """The most probable text, whose paths are summed up, among the `width` best beginnings of every frame.

    scores: logits or log probabilities. After Graves (2012) and Hannun et al., "First-Pass Large Vocabulary Continuous
    Speech Recognition using Bi-Directional Recurrent DNNs" (2014), Algorithm 1, without a language model.
    """
    probabilities = scores.double().softmax(1).numpy(force=True)
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}  # paths that end in a blank, and in a label
    for frame in probabilities:
        followed = np.flatnonzero((frame >= least) | (frame == frame.max())).tolist()
        beam = _best(_extended(beam, frame.tolist(), followed), width)
    return max(beam, key=lambda text: math.fsum(beam[text]))


def _extended(
    beam: dict[tuple[int, ...], tuple[float, float]], frame: Sequence[float], followed: Sequence[int]
) -> dict[tuple[int, ...], list[float]]:
    """Every beginning of the beam, followed by every label: [probability ending in a blank, in a label]."""
    found: defaultdict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for text, (blank, label) in beam.items():
        for following in followed:
            p = frame[following]
            if following == 0:
                found[text][0] += p * (blank + label)
            elif text and following == text[-1]:
                found[text][1] += p * label
                found[*text, following][1] += p * blank
            else:
                found[*text, following][1] += p * (blank + label)
    return found


def _best(found: dict[tuple[int, ...], list[float]], width: int) -> dict[tuple[int, ...], tuple[float, float]]:
    """The most probable beginnings, scaled to a sum of 1, so that long utterances do not run into zero."""
    kept = sorted(found.items(), key=lambda item: -sum(item[1]))[:width]
    total = sum(blank + label for _, (blank, label) in kept)
    return {text: (blank / total, label / total) for text, (blank, label) in kept}
