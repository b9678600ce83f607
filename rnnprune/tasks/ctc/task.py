"""The speech recognition task: a manifest in, characters out; character and word error rate in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rnnprune.errors import UsageError
from rnnprune.tasks.batching import Batches, bucketed
from rnnprune.tasks.ctc.audio import INSTALL
from rnnprune.tasks.ctc.augment import augmented
from rnnprune.tasks.ctc.corpus import Corpus, Item, frames_needed, read_corpus
from rnnprune.tasks.ctc.decode import beam_search, greedy
from rnnprune.tasks.ctc.model import CtcModel, CtcModelSpec, frames_within
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.source import DataOptions, entry, find_data, read_entry

BATCH_SIZE = 16
BEAM_WIDTH = 8


class Utterances(NamedTuple):
    """Padded features and their lengths; all targets in one row, and the length of each."""

    features: Float32[Tensor, "B T M"]
    lengths: Int64[Tensor, " B"]
    targets: Int64[Tensor, " targets"]
    target_lengths: Int64[Tensor, " B"]


class CtcTask:
    """A recogniser on one manifest, after the Task protocol.

    batch_size: utterances per training batch and process, and scored side by side. notes: what a person should know
    about how the data was found.
    """

    metric: str = "CER"
    goal: Goal = "min"

    def __init__(
        self, spec: CtcModelSpec, corpus: Corpus, *, batch_size: int = BATCH_SIZE, notes: tuple[str, ...] = ()
    ) -> None:
        """Raises UsageError where jiwer, which computes the error rates, is not installed."""
        _jiwer()
        self.spec, self.corpus, self.batch_size = spec, corpus, batch_size
        self.notes = (*notes, *corpus.notes)

    @classmethod
    def from_manifest(cls, spec: CtcModelSpec, options: DataOptions) -> CtcTask:
        """A task for a new model; labels and sample rate are taken from the manifest, `options.data`.

        Raises UsageError when there is no such file, InputRefused for lines that cannot be used.
        """
        if options.data is None:
            raise UsageError("no manifest; pass --data FILE")
        options.refuse_length("ctc")
        corpus, spec = read_corpus(options.data, spec, skip_bad=options.skip_bad)
        return cls(spec, corpus, batch_size=options.batch_size_or(BATCH_SIZE))

    @classmethod
    def from_checkpoint(cls, metadata: Mapping[str, object], options: DataOptions | None = None) -> CtcTask:
        """The task that a checkpoint's `rnnprune` entry describes, on the stored manifest unless one is given.

        Raises InputRefused for a damaged entry and for lines that cannot be used, UsageError when the stored file is
        gone or changed.
        """
        options = options or DataOptions()
        options.refuse_length("ctc")
        stored = read_entry(metadata)
        spec = CtcModelSpec.from_dict(stored.model)
        found = find_data(stored, options, "manifest", batch_size=BATCH_SIZE)
        corpus, spec = read_corpus(found.path, spec, skip_bad=found.options.skip_bad)
        return cls(spec, corpus, batch_size=found.options.batch_size_or(BATCH_SIZE), notes=found.notes)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint stores under `rnnprune`, and `from_checkpoint` reads."""
        corpus, batches = self.corpus, {"batch_size": self.batch_size}
        return entry("ctc", self.spec.to_dict(), corpus.path, corpus.sha256, batches, left_out=bool(corpus.notes))

    def build_model(self) -> CtcModel:
        """The untrained model, drawn from torch's global generator."""
        return self.spec.build()

    def train_batches(self, *, epoch: int, seed: int, rank: int = 0, world_size: int = 1) -> Batches[Utterances]:
        """One process's batches of one epoch, of like lengths, augmented where the spec says so.

        Raises UsageError for an impossible rank, or fewer utterances than processes.
        """
        items = self.corpus.splits["train"]
        lengths = [item.frames for item in items]
        indices = bucketed(lengths, self.batch_size, epoch=epoch, seed=seed, rank=rank, world_size=world_size)

        def collate(batch: Sequence[int]) -> Utterances:
            return together([items[i] for i in batch], [self._training_features(i, epoch, seed) for i in batch])

        return Batches(indices, collate)

    def _training_features(self, index: int, epoch: int, seed: int) -> Float32[Tensor, "frames mels"]:
        item = self.corpus.splits["train"][index]
        features, _ = self.corpus.features.read(item.audio)
        if not self.spec.augment:
            return features
        fewest = max(2, frames_needed(item.text)) * self.spec.stride
        return augmented(features, np.random.default_rng((seed, epoch, index)), min(fewest, item.frames))

    def loss(self, model: nn.Module, batch: Utterances) -> Float[Tensor, ""]:
        """CTC loss (Graves et al., 2006) in nats per character of the batch, in float32."""
        logits, lengths = model(batch.features, batch.lengths)
        return _loss(logits, lengths, batch)

    def loss_and_logits(
        self, model: nn.Module, batch: Utterances
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "frames labels"]]:
        """The loss, and the logits of every frame that counts."""
        logits, lengths = model(batch.features, batch.lengths)
        return _loss(logits, lengths, batch), logits[frames_within(lengths, logits.shape[1])]

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Character and word error rates of the best path, and of prefix beam search, in percent of the split's own."""
        items = sorted(self.corpus.splits[split], key=lambda item: item.frames)
        device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        told: dict[str, list[str]] = {"": [], f"_beam{BEAM_WIDTH}": []}
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            utterances = together(batch, [self.corpus.features.read(item.audio)[0] for item in batch])
            logits, lengths = model(utterances.features.to(device), utterances.lengths.to(device))
            for row, length in zip(logits.float().cpu(), lengths.tolist(), strict=True):
                for texts, labels in zip(
                    told.values(), (greedy(row[:length]), beam_search(row[:length], BEAM_WIDTH)), strict=True
                ):
                    texts.append("".join(self.spec.labels[label] for label in labels))
        references = [item.text for item in items]
        return {
            name + suffix: 100 * float(rate(references, texts))
            for suffix, texts in told.items()
            for name, rate in (("CER", _jiwer().cer), ("WER", _jiwer().wer))
        }


def _loss(logits: Float[Tensor, "B S L"], lengths: Int64[Tensor, " B"], batch: Utterances) -> Float[Tensor, ""]:
    scores = logits.float().log_softmax(2).transpose(0, 1)
    nats = F.ctc_loss(scores, batch.targets, lengths, batch.target_lengths, reduction="sum")
    return nats / batch.target_lengths.sum()


def together(items: Sequence[Item], features: Sequence[Float32[Tensor, "_ M"]]) -> Utterances:
    """One batch; features are padded with zeros."""
    return Utterances(
        pad_sequence(list(features), batch_first=True),
        torch.tensor([len(each) for each in features]),
        torch.cat([item.targets for item in items]),
        torch.tensor([len(item.targets) for item in items]),
    )


def _jiwer() -> Any:
    try:
        return import_module("jiwer")
    except ImportError as error:
        raise UsageError(f"the task ctc computes its error rates with jiwer: {INSTALL}") from error
