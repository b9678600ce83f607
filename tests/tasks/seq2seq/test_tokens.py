"""Texts as numbers and back."""

import pytest

from rnnprune.tasks.seq2seq.tokens import END, PAD, SPECIAL, START, UNKNOWN, Tokens, build_vocabulary

TEXTS = ["low lower low", "the  low\ttree", "a<unk> <unk> <s>"]


def test_the_marks_stand_first():
    assert (SPECIAL[PAD], SPECIAL[START], SPECIAL[UNKNOWN], SPECIAL[END]) == ("<pad>", "<s>", "<unk>", "</s>")


@pytest.mark.parametrize(
    ("level", "limit", "own"),
    [
        ("char", 2, tuple(sorted(set("".join(TEXTS))))),
        ("word", 3, ("low", "lower", "the")),
        ("word", 99, ("low", "lower", "the", "tree", "a<unk>")),
    ],
)
def test_vocabularies(level, limit, own):
    assert build_vocabulary(TEXTS, level, limit) == (*SPECIAL, *own)


def test_pieces_that_spell_a_mark_are_left_out():
    vocabulary = build_vocabulary(["x<s> y<s> z<s>"], "piece", 100)
    assert len(set(vocabulary)) == len(vocabulary)
    assert "<s" in vocabulary


@pytest.mark.parametrize("level", ["char", "word", "piece"])
def test_a_text_comes_back(level):
    tokens = Tokens(level, build_vocabulary(TEXTS, level, 100))
    for text in TEXTS[:2]:
        numbers = tokens.encode(text)
        assert min(numbers) >= UNKNOWN
        expected = text if level == "char" else " ".join(text.split())
        assert tokens.decode(numbers) == expected


def test_what_was_never_seen_is_unknown_and_marks_in_a_text_are_no_marks():
    words = Tokens("word", (*SPECIAL, "low"))
    assert words.encode("low </s> high") == [4, UNKNOWN, UNKNOWN]
    assert words.decode([4, UNKNOWN]) == "low <unk>"
    assert Tokens("char", (*SPECIAL, "l")).encode("l日") == [4, UNKNOWN]
    assert Tokens("char", SPECIAL).encode("") == []
