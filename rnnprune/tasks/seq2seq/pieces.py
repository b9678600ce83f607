"""Words in pieces: byte pair encoding, on characters.

Learning: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (ACL 2016), algorithm
1: start from characters, and again and again make the most frequent pair of neighbours one new piece. Cutting: as
SentencePiece does (Kudo, Richardson, EMNLP 2018): of all neighbours that together are a known piece, join the two whose
piece was learned first. So an ordered list of pieces is the whole model, and `WORD`, also SentencePiece's, at the
beginning of every word is what tells the spaces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

WORD = "\u2581"  # the mark that a word begins with
Pair = tuple[str, str]


def words_of(text: str) -> list[str]:
    """The words between white space, each with its mark."""
    return [WORD + word for word in text.split()]


def learn_pieces(texts: Iterable[str], count: int) -> tuple[str, ...]:
    """All characters by code point, then joined pieces in the order in which they were learned; `count` at most.

    Characters are all kept, even where they alone are more than `count`; pairs that occur once are never joined. Pairs
    of equal frequency: the first by code points, so that the same texts give the same pieces.
    """
    frequency = Counter(word for text in texts for word in words_of(text))
    pieces = dict.fromkeys(sorted({character for word in frequency for character in word}))
    table = _Pairs(frequency)
    while len(pieces) < count and (best := table.most_frequent()) is not None:
        table.join(best)
        pieces["".join(best)] = None
    return tuple(pieces)


class _Pairs:
    """How often every pair of neighbours occurs, kept up to date while pairs are joined.

    A heap holds every count that a pair has ever had; those that no longer hold are dropped when they come up.
    """

    def __init__(self, frequency: Mapping[str, int]) -> None:
        self.words = [list(word) for word in frequency]
        self.weights = list(frequency.values())
        self.counts: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        for index in range(len(self.words)):
            self._count(index, 1)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapify(self.heap)

    def most_frequent(self) -> Pair | None:
        """None when no pair is left that occurs twice."""
        while self.heap and -self.heap[0][0] != self.counts[self.heap[0][1]]:
            heappop(self.heap)
        return self.heap[0][1] if self.heap and self.heap[0][0] < -1 else None

    def join(self, pair: Pair) -> None:
        """Make the pair one symbol in every word that holds it."""
        changed: set[Pair] = set()
        for index in self.places.pop(pair):
            changed.update(self._count(index, -1))
            self.words[index] = joined(self.words[index], pair)
            changed.update(self._count(index, 1))
        for other in changed:
            heappush(self.heap, (-self.counts[other], other))

    def _count(self, index: int, sign: int) -> list[Pair]:
        """Add a word's pairs, or take them away; the pairs."""
        pairs = list(pairwise(self.words[index]))
        for pair in pairs:
            self.counts[pair] += sign * self.weights[index]
            if sign > 0:
                self.places[pair].add(index)
        return pairs


def joined(symbols: list[str], pair: Pair) -> list[str]:
    """`pair`'s neighbours made one, from left to right."""
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def cut(word: str, rank: Mapping[str, int]) -> list[str]:
    """A word in pieces. rank: a piece's place in the order of learning."""
    symbols = list(word)
    while known := [(rank[a + b], a, b) for a, b in pairwise(symbols) if a + b in rank]:
        _, first, second = min(known)
        symbols = joined(symbols, (first, second))
    return symbols
