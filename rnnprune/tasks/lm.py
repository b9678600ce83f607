"""The language model task: one text file in, the next character or word out; bits per character or perplexity.

Sizes: batch, time, window = time + 1 (inputs and targets overlap in all but one token), vocab, hidden.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor, nn

from rnnprune.architecture import Kind, RecurrentStack, Shape
from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks import text as corpus_text
from rnnprune.tasks.options import Goal, Level, Split
from rnnprune.tasks.text import IGNORED, SPECIAL, Corpus, WindowBatches

State = Float[Tensor, "layers batch hidden"] | tuple[Float[Tensor, "layers batch hidden"], ...] | None
MAX_PARAMETERS = 2**31  # a checkpoint's sizes are allocated, so they have a ceiling
_LIMITS = {"hidden": 2**20, "layers": 64, "embedding": 2**20}
_RECURRENT: Mapping[Kind, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
_MODEL_TYPES = {"level": str, "cell": str, **dict.fromkeys(_LIMITS, int), "dropout": float, "vocabulary": list}
_METADATA_TYPES = {"task": str, "model": dict, "data": dict}
_DATA_TYPES = {"path": str, "sha256": str}


@dataclass(frozen=True)
class LmModelSpec:
    """The sizes of a language model; plain data in every checkpoint.

    hidden, embedding: units. dropout: 0 <= p < 1, before, between and after the recurrent layers.
    vocabulary: empty until a text has given one. Impossible sizes raise UsageError.
    """

    level: Level = "char"
    cell: Kind = "lstm"
    hidden: int = 512
    layers: int = 1
    embedding: int = 128
    dropout: float = 0.0
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("level", self.level, get_args(Level))
        _check_choice("cell", self.cell, get_args(Kind))
        for name, limit in _LIMITS.items():
            size = getattr(self, name)
            if not 1 <= size <= limit:
                found = size if size.bit_length() < 64 else "one beyond 64 bits"  # which str() may refuse to print
                raise UsageError(f"{name}: expected a whole number from 1 to {limit:,}, found {found}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout: expected 0 <= dropout < 1, found {self.dropout}")
        if self.vocabulary:
            _check_vocabulary(self.vocabulary, self.level)
        total = sum(math.prod(shape) for shape in self.parameter_shapes().values())
        if total > MAX_PARAMETERS:
            raise UsageError(f"hidden, layers, embedding: {total:,} weights, over the limit of {MAX_PARAMETERS:,}")

    def parameter_shapes(self) -> dict[str, Shape]:
        """Name -> shape of every parameter of the model, known before anything is allocated."""
        stack = RecurrentStack("rnn", self.cell, self.embedding, self.hidden, 0, self.layers, False, True, False)
        vocab = len(self.vocabulary)
        return {
            "embedding.weight": (vocab, self.embedding),
            **stack.parameter_shapes(),
            "output.weight": (vocab, self.hidden),
            "output.bias": (vocab,),
        }

    def to_dict(self) -> dict[str, Any]:
        """Strings, numbers and lists only: what `from_dict`, JSON and a weights-only load can read."""
        return asdict(self) | {"dropout": float(self.dropout), "vocabulary": list(self.vocabulary)}

    @classmethod
    def from_dict(cls, stored: object) -> LmModelSpec:
        """The spec that a checkpoint holds. Raises InputRefused, which names the key that is unknown or wrong."""
        values = _checked(stored, "rnnprune.model", _MODEL_TYPES)
        for place, token in enumerate(values["vocabulary"]):
            if type(token) is not str:
                raise InputRefused(_wrong_type(f"rnnprune.model.vocabulary[{place}]", str, token))
        if not values["vocabulary"]:
            raise InputRefused("rnnprune.model.vocabulary: the checkpoint holds an empty one; was it edited?")
        try:
            _check_choice("level", values["level"], get_args(Level))
            _check_choice("cell", values["cell"], get_args(Kind))
            return cls(**values | {"vocabulary": tuple(values["vocabulary"])})
        except UsageError as error:
            raise InputRefused(f"rnnprune.model cannot be built: {error}; was the checkpoint edited?") from error


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name}: expected one of {', '.join(choices)}; found {value!r:.60}")


def _check_vocabulary(vocabulary: tuple[str, ...], level: Level) -> None:
    special = SPECIAL[level]
    if vocabulary[: len(special)] != special:
        raise UsageError(f"vocabulary: expected to begin with {', '.join(special)}; found {vocabulary[: len(special)]}")
    if len(set(vocabulary)) < len(vocabulary):
        raise UsageError("vocabulary: the same token stands in it twice")
    if level == "char" and (long := next((token for token in vocabulary[1:] if len(token) != 1), None)) is not None:
        raise UsageError(f"vocabulary: expected single characters, found {long!r}")


def _checked(stored: object, where: str, types: Mapping[str, type]) -> dict[str, Any]:
    """`stored` as a dict with exactly these keys, each of its type; anything else is refused by name."""
    if not isinstance(stored, Mapping):
        raise InputRefused(_wrong_type(where, dict, stored))
    unknown = [str(key) for key in stored if key not in types]
    missing = [key for key in types if key not in stored]
    if unknown or missing:
        found = [f"unknown {key!r}" for key in unknown] + [f"missing {key!r}" for key in missing]
        raise InputRefused(f"{where}: {', '.join(found[:8])}; was it written by another version of rnnprune?")
    for key, kind in types.items():
        value = stored[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputRefused(_wrong_type(f"{where}.{key}", kind, value))
    return dict(stored)


def _wrong_type(where: str, expected: type, found: object) -> str:
    return (
        f"{where}: expected {expected.__name__}, found {type(found).__name__}; the checkpoint was edited or is damaged"
    )


class LmModel(nn.Module):
    """Embedding, recurrent layers, linear output: plain torch.nn modules and an ordinary state dict."""

    def __init__(self, spec: LmModelSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(spec.vocabulary), spec.embedding)
        self.rnn = _RECURRENT[spec.cell](
            spec.embedding,
            spec.hidden,
            spec.layers,
            batch_first=True,
            dropout=spec.dropout if spec.layers > 1 else 0.0,  # torch warns where there is no "between"
        )
        self.output = nn.Linear(spec.hidden, len(spec.vocabulary))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(
        self, tokens: Int[Tensor, "batch time"], state: State = None
    ) -> tuple[Float[Tensor, "batch time vocab"], State]:
        """Scores of every next token, and the state to go on from."""
        hidden, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        return self.output(self.dropout(hidden)), state


@torch.no_grad()
def mean_nll(model: nn.Module, tokens: Int32[Tensor, " tokens"], streams: int, length: int) -> float:
    """Mean negative log likelihood in nats of every token but the first.

    The state is carried through a segment in pieces of `length` tokens, `streams` segments side by side; both numbers
    bound memory and leave the result alone.
    """
    device = _device_of(model)
    inputs, targets = corpus_text.segments_of(tokens)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(0, len(inputs), streams):
        state = None
        for column in range(0, inputs.shape[1], length):
            part = slice(row, row + streams), slice(column, column + length)
            logits, state = model(inputs[part].to(device), state)
            nll = _cross_entropy(logits, targets[part].to(device), "none")
            total += nll.sum(dtype=torch.float64).cpu()
    return float(total) / (len(tokens) - 1)


def _cross_entropy(
    logits: Float[Tensor, "batch time vocab"], targets: Int64[Tensor, "batch time"], reduction: str
) -> Float[Tensor, "*loss"]:
    """-log softmax(logits)[target], in float32 at least."""
    scores = logits.flatten(0, 1)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    return F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


class LmTask:
    """A language model on one text, after the Task protocol.

    batch_size: windows per training batch and process, and segments scored side by side. length: tokens per window.
    notes: what a person should know about how the data was found.
    """

    def __init__(
        self, spec: LmModelSpec, corpus: Corpus, *, batch_size: int = 32, length: int = 100, notes: tuple[str, ...] = ()
    ) -> None:
        """Raises UsageError for impossible sizes, InputRefused for a text too short to train and score on."""
        if batch_size < 1 or length < 1:
            raise UsageError(f"batch size {batch_size}, sequence length {length}: both must be at least 1")
        corpus_text.refuse_short(corpus, length, spec.level)
        self.metric: str = "bpc" if spec.level == "char" else "perplexity"
        self.goal: Goal = "min"
        self.spec, self.corpus, self.notes = spec, corpus, notes
        self.batch_size, self.length = batch_size, length

    @classmethod
    def from_text(
        cls, path: Path, spec: LmModelSpec, *, vocab: int = 10_000, batch_size: int = 32, length: int = 100
    ) -> LmTask:
        """A task for a new model; the vocabulary is taken from the training split.

        vocab: how many words to keep beside `<unk>` and `<eos>`; characters are all kept. Raises UsageError when there
        is no such file, InputRefused when it is not UTF-8 or too short.
        """
        if vocab < 1:
            raise UsageError(f"vocab: expected a whole number of at least 1, found {vocab}")
        text = corpus_text.read_text(path)
        splits = corpus_text.split_by_position(corpus_text.tokenize(text.content, spec.level))
        spec = replace(spec, vocabulary=corpus_text.build_vocabulary(splits.train, spec.level, vocab))
        return cls(spec, corpus_text.build_corpus(text, splits, spec.vocabulary), batch_size=batch_size, length=length)

    @classmethod
    def from_checkpoint(
        cls, metadata: Mapping[str, object], data: Path | None = None, *, batch_size: int = 32, length: int = 100
    ) -> LmTask:
        """The task that a checkpoint's `rnnprune` entry describes, on the stored data file unless `data` is given.

        Raises InputRefused for metadata that `from_dict` refuses, UsageError when the stored file is gone or changed.
        """
        entry = _checked(metadata, "rnnprune", _METADATA_TYPES)
        spec = LmModelSpec.from_dict(entry["model"])
        stored = _checked(entry["data"], "rnnprune.data", _DATA_TYPES)
        if re.fullmatch("[0-9a-f]{64}", stored["sha256"]) is None:
            raise InputRefused("rnnprune.data.sha256: expected 64 hexadecimal digits; the checkpoint was edited")
        text, notes = _find_data(stored["path"], stored["sha256"], data)
        splits = corpus_text.split_by_position(corpus_text.tokenize(text.content, spec.level))
        corpus = corpus_text.build_corpus(text, splits, spec.vocabulary)
        return cls(spec, corpus, batch_size=batch_size, length=length, notes=notes)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint stores under `rnnprune`, and `from_checkpoint` reads."""
        data = {"path": self.corpus.path, "sha256": self.corpus.sha256}
        return {"task": "lm", "model": self.spec.to_dict(), "data": data}

    def build_model(self) -> LmModel:
        """The untrained model, drawn from torch's global generator."""
        return LmModel(self.spec)

    def train_batches(self, *, epoch: int, seed: int, rank: int = 0, world_size: int = 1) -> WindowBatches:
        """One process's batches [batch, window] of one epoch; the ranks share the epoch's windows out among them.

        All batches of all ranks have the same size; the few windows left over (others in every epoch) are skipped.
        Raises UsageError for an impossible rank, or more processes than windows.
        """
        if not 0 <= rank < world_size:
            raise UsageError(f"rank {rank} of {world_size}: expected 0 <= rank < world_size")
        starts = corpus_text.shuffled_windows(self.corpus.train, self.length, epoch, seed)
        batch = min(self.batch_size, len(starts) // world_size)
        if batch == 0:
            raise UsageError(f"{len(starts)} training windows cannot feed {world_size} processes; use a longer text")
        steps = len(starts) // (batch * world_size)
        shards = starts[: steps * world_size * batch].view(steps, world_size, batch)
        return WindowBatches(self.corpus.train, shards[:, rank], self.length + 1)

    def loss(self, model: nn.Module, batch: Int64[Tensor, "batch window"]) -> Float[Tensor, ""]:
        """Mean cross entropy in nats of each window's tokens after its first, from a fresh state."""
        batch = batch.to(_device_of(model), non_blocking=True)
        logits, _ = model(batch[:, :-1])
        return _cross_entropy(logits, batch[:, 1:], "mean")

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Bits per character or perplexity of a split: every token after its first is scored once."""
        tokens: Tensor = {"validation": self.corpus.validation, "test": self.corpus.test}[split]
        nll = mean_nll(model, tokens, self.batch_size, self.length)
        if self.metric == "bpc":
            return {"bpc": nll / math.log(2)}
        return {"perplexity": math.exp(nll) if nll < 700 else math.inf}  # exp() of more raises OverflowError


def _find_data(stored_path: str, stored_sha256: str, data: Path | None) -> tuple[corpus_text.Text, tuple[str, ...]]:
    """The text to use, and a note where it is not the one that the model was trained on."""
    if data is None and not Path(stored_path).is_file():
        raise UsageError(f"the model was trained on {stored_path}, which is not here; pass --data FILE")
    text = corpus_text.read_text(data or Path(stored_path))
    if text.sha256 == stored_sha256:
        return text, ()
    if data is None:
        raise UsageError(
            f"{stored_path} is not the file that the model was trained on: sha256 {text.sha256}, expected "
            f"{stored_sha256}; pass --data {stored_path} to use it as it is, or --data with the original file"
        )
    note = f"{data} is not the text that the model was trained on (sha256 {text.sha256}, not {stored_sha256})"
    return text, (f"{note}: its figures cannot be compared with earlier ones",)
