"""The three tasks: how their dense models are trained, in which sizes, and what a step costs.

The sizes stand to each other as in Table 3 of Narang et al., ICLR 2017: medium has 1.45, large 1.75 times the units of
base. `small` has a sixth of the weights of base; `matched` are the shares of zeros that leave every other size with as
many nonzeros, embeddings and biases counted, as `small` has weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SIZES = ("small", "base", "medium", "large")


class Task(NamedTuple):
    """train: the words after `rnnprune train`; both: those of `train` and `finetune`; sizes: the flags of each size.

    dense_steps, steps: of the dense training and of the fine-tuning after it. rates: of the fine-tuning, the first that
    are tried for every variant; margin: the share by which both ends must be worse. milliseconds: of a step
    on one quiet core; evaluation: seconds of one split; both only for the estimate of what is left to do.
    told: what it is, for a page. shown: the figure that decides, in the words of a page. test: what the test split
    holds; counted: of what is counted right or wrong, how many; 0 where nothing is.
    """

    train: str
    sizes: Mapping[str, str]
    matched: Mapping[str, float]
    milliseconds: Mapping[str, float]
    dense_steps: int
    steps: int
    rates: tuple[str, str, str]
    margin: float
    evaluation: float
    told: str
    shown: str
    test: str
    counted: int = 0
    both: str = ""


TASKS: Mapping[str, Task] = {
    "g2p": Task(
        train="seq2seq --data .cache/text/g2p.tsv --level char --target-level word --metric WER --lr 0.002",
        sizes={
            "small": "--hidden 70 --embedding 32",
            "base": "--hidden 192 --embedding 64",
            "medium": "--hidden 280 --embedding 64",
            "large": "--hidden 336 --embedding 64",
        },
        matched={"base": 0.86058, "medium": 0.93007, "large": 0.95051},
        milliseconds={"small": 15, "base": 33, "medium": 48, "large": 62},
        dense_steps=3000,
        steps=3000,
        rates=("0.001", "0.002", "0.004"),
        margin=0.02,
        evaluation=1.0,
        told="spelling to phonemes (a quarter of cmudict), GRU encoder and decoder with attention",
        shown="phonemes wrong, %",
        test="1,504 words, 9,610 phonemes",
        counted=9610,
    ),
    "lm": Task(
        train="lm --data .cache/text/fortunes.txt --cell lstm --lr 0.016",
        sizes={
            "small": "--hidden 52 --embedding 32",
            "base": "--hidden 160 --embedding 64",
            "medium": "--hidden 232 --embedding 64",
            "large": "--hidden 280 --embedding 64",
        },
        matched={"base": 0.88315, "medium": 0.93927, "large": 0.95710},
        milliseconds={"small": 20, "base": 50, "medium": 80, "large": 100},
        dense_steps=3000,
        steps=1500,
        rates=("0.004", "0.008", "0.016"),
        margin=0.005,
        evaluation=2.5,
        told="the characters of Debian's fortunes, one LSTM",
        shown="bits per character",
        test="128,285 characters",
    ),
    "speech": Task(
        train="ctc --data .cache/speech/en.tsv --cell lstm --layers 2 --stride 3 --channels 16 --no-augment --lr 0.002",
        both="--batch-size 8",
        sizes={
            "small": "--hidden 64",
            "base": "--hidden 192",
            "medium": "--hidden 272",
            "large": "--hidden 336",
        },
        matched={"base": 0.85271, "medium": 0.92371, "large": 0.94933},
        milliseconds={"small": 33, "base": 80, "medium": 107, "large": 150},
        dense_steps=1500,
        steps=600,
        rates=("0.001", "0.002", "0.004"),
        margin=0.02,
        evaluation=6.0,
        told="Asterisk's English prompts, two bidirectional LSTM layers with CTC",
        shown="characters wrong, %",
        test="64 prompts, 2,017 characters",
        counted=2017,
    ),
}
