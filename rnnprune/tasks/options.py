"""What a user may choose about a task, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

from typing import Literal

Goal = Literal["min", "max"]
Split = Literal["validation", "test"]
Level = Literal["char", "word"]
TokenLevel = Literal["char", "word", "piece"]
DistillLevel = Literal["word", "sequence"]
Attention = Literal["dot", "additive"]
PairMetric = Literal["CER", "WER", "BLEU"]
