"""The distill task: no labels and no loss known, so the dense model is the teacher.

The recurrent and linear layers learn to give what the dense ones give on unlabelled inputs; everything else keeps its
weights. Figure: NRMSE, the root mean square distance to the teacher's outputs in percent of those outputs' own standard
deviation; 0 is the teacher itself, 100 is no better than their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnprune.architecture import RecurrentStack
from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.batching import Batches, bucketed
from rnnprune.tasks.copies import copy_of
from rnnprune.tasks.distill.inputs import ONLY
from rnnprune.tasks.distill.stacks import run_stack
from rnnprune.tasks.options import Goal, Split

BATCH_SIZE, LENGTH = 32, 100
Inputs = dict[str, Tensor]
Run = Callable[[nn.Module, Inputs], list[Tensor]]


@dataclass(frozen=True)
class Student:
    """What learns: an untrained module, its inputs (examples along the first axis), and how it is run on them.

    unfed: matrices that have no part in it.
    """

    module: nn.Module
    inputs: Inputs
    run: Run
    unfed: Sequence[str] = ()


class DistillTask:
    """Reproduce a teacher's outputs, after the Task protocol.

    The first 90 % of the examples are for training, the next 5 % for validation, the last 5 % for the test.
    """

    def __init__(self, student: Student, teacher: nn.Module, *, batch_size: int = BATCH_SIZE) -> None:
        """teacher: the dense model, trained. Raises InputRefused for fewer than three examples."""
        self.metric: str = "NRMSE"
        self.goal: Goal = "min"
        self.student, self.batch_size = student, batch_size
        self.teacher = teacher.eval().requires_grad_(False)
        counts = {name: len(x) for name, x in student.inputs.items()}
        examples = min(counts.values())
        if len(set(counts.values())) > 1 or examples < 3:
            raise InputRefused(f"--inputs: {counts} examples; expected equally many in every array, and at least 3")
        test, validation = max(1, examples * 5 // 100), max(1, examples * 5 // 100)
        train = examples - validation - test
        split = f"{examples} examples: {train} to train on, {validation} for validation, {test} for the test"
        left = ", ".join(student.unfed)
        unfed = f"{left}: no input feeds it, so it stays as it is; --model my_model.py:build takes the whole model"
        self.notes = (unfed, split) if left else (split,)
        self.ranges: Mapping[str, range] = {
            "train": range(train),
            "validation": range(train, train + validation),
            "test": range(train + validation, examples),
        }
        self.variances = [max(moments.variance, 1e-12) for moments in self._moments()]

    def build_model(self) -> nn.Module:
        """The untrained student: recurrent and linear layers want gradients, nothing else does; no dropout."""
        model = copy_of(self.student.module).requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.Linear):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(True)
            if isinstance(module, nn.RNNBase):
                module.dropout = 0.0
        return model

    def train_batches(self, *, epoch: int, seed: int, rank: int = 0, world_size: int = 1) -> Batches[Inputs]:
        """One process's batches of examples, by the names of the inputs."""
        examples = [1] * len(self.ranges["train"])
        indices = bucketed(examples, self.batch_size, epoch=epoch, seed=seed, rank=rank, world_size=world_size)
        return Batches(indices, self._take)

    def loss(self, model: nn.Module, batch: Inputs) -> Tensor:
        """Mean squared distance to the teacher, each output in units of its own variance."""
        for module in model.modules():
            module.training = isinstance(module, nn.RNNBase)  # norms as in use; cuDNN wants its layers in training mode
        with torch.no_grad():
            targets = self.student.run(self.teacher, batch)
        outputs = self.student.run(model, batch)
        distances = [F.mse_loss(y, t) / v for y, t, v in zip(outputs, targets, self.variances, strict=True)]
        return torch.stack(distances).mean()

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """The NRMSE over all outputs, in percent."""
        squares, count = [0.0] * len(self.variances), [0] * len(self.variances)
        for outputs, targets in zip(self._outputs(model, split), self._outputs(self.teacher, split), strict=True):
            for place, (y, t) in enumerate(zip(outputs, targets, strict=True)):
                squares[place] += float((y.double() - t.double()).square().sum())
                count[place] += t.numel()
        ratios = [s / n / v for s, n, v in zip(squares, count, self.variances, strict=True)]
        return {"NRMSE": 100 * math.sqrt(sum(ratios) / len(ratios))}

    def _moments(self) -> list[_Moments]:
        found: list[_Moments] = []
        for outputs in self._outputs(self.teacher, "train"):
            found = found or [_Moments() for _ in outputs]
            for moments, output in zip(found, outputs, strict=True):
                moments.add(output)
        return found

    def _outputs(self, model: nn.Module, split: str) -> Iterator[list[Tensor]]:
        """What the model gives on every part of a split, part by part."""
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        examples = self.ranges[split]
        for start in range(0, len(examples), self.batch_size):
            part = self._take(examples[start : start + self.batch_size])
            with torch.no_grad():
                outputs = self.student.run(model, {name: x.to(device) for name, x in part.items()})
            yield outputs

    def _take(self, examples: Sequence[int]) -> Inputs:
        return {name: x[list(examples)] for name, x in self.student.inputs.items()}


@dataclass
class _Moments:
    """Of one output, over all examples; float64."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, output: Tensor) -> None:
        exact = output.double()
        self.count, self.total = self.count + output.numel(), self.total + float(exact.sum())
        self.squares += float(exact.square().sum())

    @property
    def variance(self) -> float:
        return self.squares / self.count - (self.total / self.count) ** 2


def stacks_student(
    module: nn.Module, stacks: Sequence[RecurrentStack], arrays: Inputs, length: int = LENGTH
) -> Student:
    """A student of which only the recurrent stacks are known: each is fed with the array of its name.

    arrays: by the stacks' prefixes; one array may have any name where there is one stack. [N, T, I] examples, or one
    long recording [T, I], which is cut into windows of `length` steps. Raises UsageError for an array that is missing,
    belongs to no stack, or has another number of features.
    """
    if len(stacks) == len(arrays) == 1:
        arrays = {stacks[0].prefix: next(iter(arrays.values()))}
    wanted = {stack.prefix: stack for stack in stacks}
    sizes = ", ".join(f"{prefix or 'the stack'!r} of [N, T, {stack.input_size}]" for prefix, stack in wanted.items())
    if arrays.keys() != wanted.keys():
        found = ", ".join(map(repr, arrays)) or "none"
        raise UsageError(f"--inputs: expected arrays named {sizes}; found {found}")
    for prefix, x in arrays.items():
        if x.ndim not in (2, 3) or x.shape[-1] != wanted[prefix].input_size or not x.is_floating_point():
            name, size = f"--inputs, {prefix!r}" if prefix else "--inputs", wanted[prefix].input_size
            raise UsageError(
                f"{name}: {str(x.dtype).removeprefix('torch.')} {list(x.shape)}; its layer takes floats [N, T, {size}] "
                f"or one recording [T, {size}]: convert them, or name the checkpoint that they belong to"
            )
    windows = {prefix: x if x.ndim == 3 else _windows(x, prefix, length) for prefix, x in arrays.items()}

    def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
        return [run_stack(model.get_submodule(p), x, is_cell=wanted[p].is_cell) for p, x in inputs.items()]

    fed = {name for stack in stacks for name in stack.parameter_shapes()}
    unfed = [name for name, tensor in module.state_dict().items() if tensor.ndim == 2 and name not in fed]
    return Student(module, windows, run, unfed)


def _windows(recording: Tensor, prefix: str, length: int) -> Tensor:
    count = len(recording) // length
    if count < 3:
        raise UsageError(f"--inputs, {prefix!r}: {len(recording)} steps are fewer than 3 windows of --seq-len {length}")
    return recording[: count * length].reshape(count, length, -1)


def model_student(module: nn.Module, arrays: Inputs) -> Student:
    """A student that is run as a whole: arrays go to `forward` by their names, a single one as its first argument.

    Every tensor of floats in what it returns is to be reproduced.
    """
    by_name = set(arrays) != {ONLY}

    def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
        try:
            outputs = model(**inputs) if by_name else model(inputs[ONLY])
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            told = ", ".join(
                f"{x.dtype} {list(x.shape)} {name}".removeprefix("torch.").strip() for name, x in inputs.items()
            )
            raise UsageError(
                f"--inputs: the model cannot be run on {told}: {error}; write what its forward takes"
            ) from error
        return _floats(outputs)

    return Student(module, arrays, run)


def _floats(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    return [tensor for part in outputs for tensor in _floats(part)] if isinstance(outputs, tuple | list) else []
