"""The sizes of an encoder-decoder model, its vocabularies, and how its answers are found and scored."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.tasks.options import Attention, PairMetric, TokenLevel
from rnnprune.tasks.seq2seq.tokens import SPECIAL
from rnnprune.tasks.spec import MAX_LAYERS, MAX_UNITS, ModelSpec, check_tokens

LONGEST, WIDEST = 100_000, 1_000


@dataclass(frozen=True)
class Seq2SeqModelSpec(ModelSpec):
    """What `rnnprune.load` needs to build the model and to run it on texts.

    hidden: units of the decoder, and of both directions of the encoder together. embedding: units of both embeddings.
    dropout: 0 <= p < 1, on embeddings, between layers and before the output. beam: hypotheses kept while decoding, 1 is
    greedy. longest: tokens in an answer at most, its end mark included. The vocabularies: empty until a file has given
    them. Impossible sizes raise UsageError.
    """

    source_level: TokenLevel = "char"
    target_level: TokenLevel = "char"
    metric: PairMetric = "CER"
    cell: Kind = "gru"
    hidden: int = 256
    layers: int = 1
    embedding: int = 128
    attention: Attention = "dot"
    dropout: float = 0.0
    beam: int = 1
    longest: int = 1
    source_vocabulary: tuple[str, ...] = ()
    target_vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.check_choices(vars(self))
        self.check_sizes(hidden=MAX_UNITS, layers=MAX_LAYERS, embedding=MAX_UNITS, beam=WIDEST, longest=LONGEST)
        self.check_dropout(self.dropout)
        if self.hidden % 2:
            raise UsageError(f"hidden: expected an even number, half for each direction of the encoder; {self.hidden}")
        for side in ("source", "target"):
            if vocabulary := getattr(self, f"{side}_vocabulary"):
                _check_vocabulary(f"{side}_vocabulary", vocabulary, getattr(self, f"{side}_level"))
        self.check_total()

    def build(self) -> nn.Module:
        """The untrained Seq2SeqModel, drawn from torch's global generator."""
        from rnnprune.tasks.seq2seq.model import Seq2SeqModel

        return Seq2SeqModel(self)


def _check_vocabulary(name: str, vocabulary: tuple[str, ...], level: TokenLevel) -> None:
    check_tokens(name, vocabulary, SPECIAL)
    own = vocabulary[len(SPECIAL) :]
    if level == "char" and (long := next((token for token in own if len(token) != 1), None)) is not None:
        raise UsageError(f"{name}: expected single characters, found {long!r:.60}")
