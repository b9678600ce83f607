"""How a model is trained, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rnnprune.errors import UsageError

OptimizerName = Literal["adam", "adamw", "sgd"]
Decay = Literal["cosine", "linear", "constant"]
Precision = Literal["fp32", "bf16", "fp16"]

DEFAULT_STEPS = 1000


@dataclass(frozen=True)
class Recipe:
    """Optimizer, learning rate and length of a training run.

    Give `steps` (optimizer steps), `epochs`, or neither for DEFAULT_STEPS. `sgd` is SGD with Nesterov momentum 0.9, the
    paper's choice. `clip_norm` bounds the norm of the gradients of the weights that are kept; 0 leaves them alone.
    `precision` is that of the layers' arithmetic (autocast); weights, moments and scores stay in float32.
    """

    steps: int | None = None
    epochs: float | None = None
    optimizer: OptimizerName = "adam"
    lr: float = 1e-3
    decay: Decay = "cosine"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    seed: int = 0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both say how long to train; give one of them")
        for flag, value in (("--steps", self.steps), ("--epochs", self.epochs), ("--lr", self.lr)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{flag} must be above 0 and finite, found {value}")
        for flag, value in (("--weight-decay", self.weight_decay), ("--clip-norm", self.clip_norm)):
            if not 0 <= value < math.inf:
                raise UsageError(f"{flag} must not be below 0 and must be finite, found {value}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be a whole number from 0 to 2**63 - 1, found {self.seed}")
        for flag, name, names in (
            ("--optimizer", self.optimizer, OptimizerName),
            ("--decay", self.decay, Decay),
            ("--precision", self.precision, Precision),
        ):
            if name not in get_args(names):
                raise UsageError(f"{flag} must be one of {', '.join(get_args(names))}; found {name!r}")

    def learning_rate(self, step: int, total_steps: int) -> float:
        """The rate of optimizer step `step` (from 1): a linear warm-up over 2 % of all steps, then the decay to 0."""
        warm_up = max(1, round(0.02 * total_steps))
        if step <= warm_up:
            return self.lr * step / warm_up
        progress = (step - warm_up) / max(1, total_steps - warm_up)
        if self.decay == "cosine":
            return self.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.lr * (1.0 - progress) if self.decay == "linear" else self.lr
