"""Text as tokens and back, at three levels: characters, words between white space, pieces of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from rnnprune.tasks.options import TokenLevel
from rnnprune.tasks.seq2seq.pieces import WORD, cut, learn_pieces, words_of

SPECIAL = ("<pad>", "<s>", "<unk>", "</s>")
PAD, START, UNKNOWN, END = range(4)
NEVER_GIVEN = slice(PAD, UNKNOWN)  # PAD and START are no part of any answer


class Tokens:
    """Texts of one language as numbers of its vocabulary.

    Words and pieces do not keep the white space between words: it comes back as one space each.
    """

    def __init__(self, level: TokenLevel, vocabulary: Sequence[str]) -> None:
        self.level, self.vocabulary = level, vocabulary
        self.place = {token: index for index, token in enumerate(vocabulary) if index >= len(SPECIAL)}
        self._cuts: dict[str, list[str]] = {}

    def encode(self, text: str) -> list[int]:
        """Every token's place, UNKNOWN for one that has none; no marks of start or end."""
        return [self.place.get(token, UNKNOWN) for token in self._tokens(text)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text that these tokens make; those without text of their own stand as `<unk>` and the like."""
        tokens = [self.vocabulary[number] for number in numbers]
        if self.level == "word":
            return " ".join(tokens)
        text = "".join(tokens)
        return text if self.level == "char" else text.replace(WORD, " ").strip()

    def _tokens(self, text: str) -> Iterable[str]:
        if self.level == "char":
            return text
        return text.split() if self.level == "word" else chain.from_iterable(map(self._pieces, words_of(text)))

    def _pieces(self, word: str) -> list[str]:
        if word not in self._cuts:
            self._cuts[word] = cut(word, self.place)
        return self._cuts[word]


def build_vocabulary(texts: Sequence[str], level: TokenLevel, limit: int) -> tuple[str, ...]:
    """SPECIAL, then every character by code point, the `limit` most frequent words, or `limit` pieces.

    Words of equal frequency keep the order in which they first appear. A text may spell out `<unk>`: that is no token
    of its own.
    """
    if level == "piece":
        return (*SPECIAL, *(piece for piece in learn_pieces(texts, limit) if piece not in SPECIAL))
    if level == "char":
        return (*SPECIAL, *sorted(set(chain.from_iterable(texts))))
    counts = Counter(word for text in texts for word in text.split() if word not in SPECIAL)
    return (*SPECIAL, *(word for word, _ in counts.most_common(limit)))
