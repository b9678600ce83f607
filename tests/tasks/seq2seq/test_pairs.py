"""Files of pairs: what is read, what is refused with its line, what is left out, and who is in which split."""

from pathlib import Path

import pytest

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.seq2seq.pairs import read_corpus, split_of

MANY = [f"w{i}\tW{i}" for i in range(400)]


def write(path: Path, lines: list[str | bytes]) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


BAD = [
    ("no tab at all", "expected source, tab, target; found 0 tabs in 'no tab at all'"),
    ("a\tb\tc", "expected source, tab, target; found 2 tabs in 'a | b | c'"),
    ("", "expected source, tab, target; found 0 tabs in ''"),
    ("\ttarget", "the source is empty"),
    ("source\t \r", "the target is empty"),
    (b"caf\xe9\tcoffee", "the byte 0xe9 is not UTF-8"),
]


@pytest.mark.parametrize(("line", "problem"), BAD)
def test_a_bad_line_is_refused_with_file_and_number_or_left_out_and_told(tmp_path, line, problem):
    path = write(tmp_path / "pairs.tsv", [*MANY[:2], line, *MANY[2:]])
    with pytest.raises(InputRefused) as caught:
        read_corpus(path, skip_bad=False)
    assert str(caught.value).startswith(f"{path}:3: {problem}; correct the file, or pass --skip-bad")
    corpus = read_corpus(path, skip_bad=True)
    assert corpus.notes == (f"1 of 401 lines left out: {path}:3: {problem}",)
    assert len(corpus.train) + len(corpus.validation) + len(corpus.test) == 400


def test_many_bad_lines_are_counted_and_a_few_named(tmp_path):
    path = write(tmp_path / "pairs.tsv", [*MANY, *["bad"] * 9])
    with pytest.raises(InputRefused, match=r"tsv:401: .*; line 405: .*in 'bad' \(and 4 more\); correct"):
        read_corpus(path, skip_bad=False)


def test_byte_order_marks_and_windows_line_ends_are_no_part_of_a_text(tmp_path):
    path = write(tmp_path / "pairs.tsv", [b"\xef\xbb\xbfw0\tW0\r", *(line + "\r" for line in MANY[1:])])
    assert read_corpus(path, skip_bad=False).train == read_corpus(write(tmp_path / "b", MANY), skip_bad=False).train


def test_a_source_is_in_one_split_with_all_its_targets(tmp_path):
    lines = [f"w{i % 200}\tW{i}" for i in range(400)]
    corpus = read_corpus(write(tmp_path / "pairs.tsv", lines), skip_bad=False)
    trained = {pair.source for pair in corpus.train}
    assert not trained & corpus.validation.keys() | trained & corpus.test.keys()
    assert not corpus.validation.keys() & corpus.test.keys()
    assert 0.8 < len(trained) / 200 < 0.97
    for references in (corpus.validation, corpus.test):
        for source, targets in references.items():
            assert targets == (f"W{source[1:]}", f"W{int(source[1:]) + 200}")


def test_the_same_target_twice_is_one_reference(tmp_path):
    corpus = read_corpus(write(tmp_path / "pairs.tsv", MANY * 2), skip_bad=False)
    assert {len(targets) for targets in corpus.test.values()} == {1}
    assert len(corpus.train) == 2 * len({pair.source for pair in corpus.train})


def test_the_split_is_a_hash_that_anyone_can_compute():
    # printf %s haus | sha256sum, as one number, modulo 20: 0; w8: 1; w17: 0; w20: 1; low: 19; newest: 2
    found = {word: split_of(word) for word in ("haus", "w8", "w17", "w20", "low", "newest")}
    assert list(found.values()) == ["test", "validation", "test", "validation", "train", "train"]


def test_too_few_pairs_and_no_file(tmp_path):
    with pytest.raises(InputRefused, match=r"2 pairs are too few, none fell into .*; use more"):
        read_corpus(write(tmp_path / "pairs.tsv", MANY[:2]), skip_bad=False)
    with pytest.raises(UsageError, match="does not exist"):
        read_corpus(tmp_path / "none.tsv", skip_bad=False)
