"""The tasks `tag` and `classify` after the Task protocol.

B batch, T time, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from rnnprune.tasks.batching import Batches, bucketed
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.source import DataOptions, entry, find_data, read_entry
from rnnprune.tasks.tag import corpus as data
from rnnprune.tasks.tag import metrics
from rnnprune.tasks.tag.corpus import Corpus, Numbered
from rnnprune.tasks.tag.model import (
    ClassifyModelSpec,
    Inputs,
    SequenceModel,
    SequenceModelSpec,
    Standardise,
    TagModelSpec,
)

BATCH_SIZE = 32
IGNORED = -100  # the target that torch's cross entropy leaves out
Spec = TypeVar("Spec", bound=SequenceModelSpec)
Own = TypeVar("Own", bound="SequenceTask[Any]")


class Batch(NamedTuple):
    """inputs: tokens [B, T] or frames [B, T, F], zeros after each item's length; labels [B, T] or [B], int64."""

    inputs: Tensor
    lengths: Tensor
    labels: Tensor


class SequenceTask(Generic[Spec]):
    """What `tag` and `classify` share: data, batches, loss. `metric` is the accuracy, a share, of every label alike.

    batch_size: items per training batch and process. notes: what a person should know about how the data was found.
    """

    name: ClassVar[str]
    per_step: ClassVar[bool]
    spec_type: type[Spec]
    metric: str = "accuracy"
    goal: Goal = "max"

    def __init__(
        self, spec: Spec, corpus: Corpus, *, batch_size: int = BATCH_SIZE, notes: tuple[str, ...] = ()
    ) -> None:
        self.spec, self.corpus, self.batch_size = spec, corpus, batch_size
        self.notes = (*notes, *corpus.notes)

    @classmethod
    def from_file(
        cls: type[Own], path: Path, spec: Spec, options: DataOptions | None = None, *, vocab: int = 10_000
    ) -> Own:
        """A task for a new model, whose vocabulary and labels are those of the training split.

        Raises UsageError when there is no such file, InputRefused for data that cannot be used.
        """
        options = options or DataOptions()
        options.refuse_length(cls.name)
        file = data.read_file(path, spec, per_step=cls.per_step)
        spec = data.fill_spec(spec, file, vocab)
        corpus = data.build_corpus(file, spec, skip_bad=options.skip_bad)
        return cls(spec, corpus, batch_size=options.batch_size_or(BATCH_SIZE))

    @classmethod
    def from_checkpoint(cls: type[Own], metadata: Mapping[str, object], options: DataOptions | None = None) -> Own:
        """The task that a checkpoint's `rnnprune` entry describes, on the stored data file unless one is given.

        Raises InputRefused for metadata that `from_dict` refuses, UsageError when the stored file is gone or changed.
        """
        options = options or DataOptions()
        options.refuse_length(cls.name)
        stored = read_entry(metadata)
        spec = cls.spec_type.from_dict(stored.model)
        found = find_data(stored, options, "data", batch_size=BATCH_SIZE)
        file = data.read_file(found.path, spec, per_step=cls.per_step)
        corpus = data.build_corpus(file, spec, skip_bad=found.options.skip_bad)
        return cls(spec, corpus, batch_size=found.options.batch_size_or(BATCH_SIZE), notes=found.notes)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint stores under `rnnprune`, and `from_checkpoint` reads."""
        corpus, batches = self.corpus, {"batch_size": self.batch_size}
        return entry(self.name, self.spec.to_dict(), corpus.path, corpus.sha256, batches, left_out=bool(corpus.notes))

    def build_model(self) -> SequenceModel:
        """The untrained model, drawn from torch's global generator; it scales features to the training split's."""
        model = self.spec.build()
        if isinstance(model.embedding, Standardise):
            mean, scale = data.feature_scale(self.corpus.splits["train"])
            model.embedding.mean.copy_(torch.from_numpy(mean))
            model.embedding.scale.copy_(torch.from_numpy(scale))
        return model

    def train_batches(self, *, epoch: int, seed: int, rank: int = 0, world_size: int = 1) -> Batches[Batch]:
        """One process's batches of one epoch, items of like lengths together."""
        items = self.corpus.splits["train"]
        lengths = [len(item.inputs) for item in items]
        indices = bucketed(lengths, self.batch_size, epoch=epoch, seed=seed, rank=rank, world_size=world_size)
        return Batches(indices, lambda batch: self.collate([items[i] for i in batch]))

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean cross entropy in nats of every label."""
        return _loss(self._scores(model, batch), batch)

    def loss_and_logits(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "counted labels"]]:
        """The loss, and the logits of every step (or sequence) that has a label."""
        scores = self._scores(model, batch)
        return _loss(scores, batch), scores[batch.labels.flatten() != IGNORED]

    def _scores(self, model: nn.Module, batch: Batch) -> Float[Tensor, "positions labels"]:
        scores: Tensor = model(batch.inputs, batch.lengths.cpu())
        return scores.flatten(0, -2)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Accuracy and macro F1 of a split, and for two labels the area under the second one's ROC curve."""
        device = next(model.parameters()).device
        items = sorted(self.corpus.splits[split], key=lambda item: len(item.inputs))
        scores, true = [], []
        for begin in range(0, len(items), self.batch_size):
            batch = self.collate(items[begin : begin + self.batch_size])
            counted = batch.labels != IGNORED
            scores.append(model(batch.inputs.to(device), batch.lengths).float().cpu()[counted])
            true.append(batch.labels[counted])
        return figures(torch.cat(scores), torch.cat(true))

    def collate(self, items: Sequence[Numbered]) -> Batch:
        """Items as one batch, padded to the longest; labels [B, T] are IGNORED after each item's length."""
        labels = [item.labels for item in items]
        whole = pad(labels, IGNORED) if self.per_step else torch.from_numpy(np.concatenate(labels))
        return Batch(*padded(items), whole)


class TagTask(SequenceTask[TagModelSpec]):
    """A label for every step."""

    name, per_step, spec_type = "tag", True, TagModelSpec


class ClassifyTask(SequenceTask[ClassifyModelSpec]):
    """A label for the whole sequence."""

    name, per_step, spec_type = "classify", False, ClassifyModelSpec


def _loss(scores: Float[Tensor, "positions labels"], batch: Batch) -> Float[Tensor, ""]:
    return F.cross_entropy(scores.float(), batch.labels.flatten(), ignore_index=IGNORED)


def padded(items: Sequence[Numbered]) -> tuple[Inputs, Int64[Tensor, " batch"]]:
    """Inputs with zeros after their ends, and their lengths."""
    return pad([item.inputs for item in items], 0), torch.tensor([len(item.inputs) for item in items])


def pad(arrays: Sequence[NDArray[Any]], value: int) -> Tensor:
    """Arrays [T, ...] as one tensor [B, longest T, ...]."""
    tensors = [torch.from_numpy(array) for array in arrays]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def figures(scores: Float[Tensor, "items labels"], true: Int64[Tensor, " items"]) -> dict[str, float]:
    """The figures of scored items, by name."""
    told, truth = scores.argmax(dim=-1).numpy(), true.numpy()
    found = {"accuracy": metrics.accuracy(told, truth), "macro_f1": metrics.macro_f1(told, truth)}
    if scores.shape[1] == 2 and 0 < truth.sum() < len(truth):
        found["auc"] = metrics.area_under_curve((scores[:, 1] - scores[:, 0]).numpy(), truth == 1)
    return found
