"""Reading, tokens, splits, vocabulary, windows and segments of a text."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.text import (
    IGNORED,
    SEGMENT,
    WindowBatches,
    build_vocabulary,
    encode,
    read_text,
    segments_of,
    split_by_position,
    tokenize,
    window_starts,
)


def written(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "data.txt"
    path.write_bytes(raw)
    return path


def test_crlf_cr_and_byte_order_mark_are_normalised_but_the_fingerprint_is_of_the_bytes(tmp_path):
    raw = b"\xef\xbb\xbfone\r\ntwo\rthree\n"
    text = read_text(written(tmp_path, raw))
    assert text.content == "one\ntwo\nthree\n"
    assert text.sha256 == hashlib.sha256(raw).hexdigest()


def test_bytes_that_are_not_utf8_are_refused_with_offset_and_remedy(tmp_path):
    with pytest.raises(InputRefused, match=r"byte 0xe9 at offset 3 is not UTF-8.*iconv -f latin1 -t utf-8 data\.txt"):
        read_text(written(tmp_path, "café".encode("latin1")))
    with pytest.raises(InputRefused, match="iconv -f utf-16 "):
        read_text(written(tmp_path, "café".encode("utf-16")))
    with pytest.raises(InputRefused, match=r"data\.txt: not a text file, it holds zero bytes; pass UTF-8 text"):
        read_text(written(tmp_path, b"\x7fELF\2\0\xff"))


def test_missing_file_and_folder_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.txt: does not exist; pass one UTF-8 text file as --data"):
        read_text(tmp_path / "nowhere.txt")
    with pytest.raises(UsageError, match="is not a regular file"):
        read_text(tmp_path)


def test_characters_are_unicode_code_points():
    assert list(tokenize("aé日😀\n", "char")) == ["a", "é", "日", "😀", "\n"]


@pytest.mark.parametrize("content", ["one two\n\nthree\n", "one two\n\nthree"])
def test_words_end_with_eos_at_every_line_end_with_or_without_a_last_newline(content):
    assert tokenize(content, "word") == ["one", "two", "<eos>", "<eos>", "three", "<eos>"]


def test_form_feed_and_line_separator_are_white_space_and_no_line_ends():
    assert tokenize("a\x0cb\u2028c\n", "word") == ["a", "b", "c", "<eos>"]


@given(st.integers(0, 5000))
def test_the_splits_are_contiguous_and_lose_nothing(count):
    tokens = [str(i) for i in range(count)]
    splits = split_by_position(tokens)
    assert [*splits.train, *splits.validation, *splits.test] == tokens
    assert len(splits.train) == count * 90 // 100
    assert abs(len(splits.validation) - len(splits.test)) <= 1


def test_character_vocabulary_is_unk_then_code_points():
    assert build_vocabulary("b😀a\né", "char", 2) == ("<unk>", "\n", "a", "b", "é", "😀")


def test_word_ties_are_kept_in_order_of_first_appearance():
    train = ["d", "c", "b", "a", "b", "d", "<eos>", "<unk>", "<unk>", "<unk>", "<eos>"]
    assert build_vocabulary(train, "word", 3) == ("<unk>", "<eos>", "d", "b", "c")
    assert build_vocabulary(train, "word", 99) == ("<unk>", "<eos>", "d", "b", "c", "a")


def test_tokens_without_a_place_become_unk():
    indices = encode(["b", "never", "<eos>", "<unk>"], ("<unk>", "<eos>", "a", "b"))
    assert indices.tolist() == [3, 0, 1, 0]
    assert indices.dtype == torch.int32


@given(st.integers(1, 40), st.integers(0, 400), st.integers(0, 5), st.integers(0, 5))
def test_windows_tile_the_text_without_overlap_and_stay_inside(length, surplus, epoch, seed):
    tokens = torch.zeros(length + 1 + surplus, dtype=torch.int32)
    starts = window_starts(tokens, length, epoch, seed, shuffled=True).sort().values
    assert starts.diff().eq(length).all()
    assert starts[0] >= 0
    assert starts[-1] + length + 1 <= len(tokens)
    assert len(starts) == len(window_starts(tokens, length, epoch + 1, seed, shuffled=True))


def test_window_batches_are_the_consecutive_tokens_and_can_be_iterated_twice():
    batches = WindowBatches(torch.arange(20, dtype=torch.int32), torch.tensor([[3, 0], [10, 7]]), 4)
    expected = [[[3, 4, 5, 6], [0, 1, 2, 3]], [[10, 11, 12, 13], [7, 8, 9, 10]]]
    assert len(batches) == 2
    for _ in range(2):
        assert [batch.tolist() for batch in batches] == expected
    assert next(iter(batches)).dtype == torch.int64


@pytest.mark.parametrize("count", [2, 17, SEGMENT, SEGMENT + 1, SEGMENT + 2, 2 * SEGMENT + 1, 2 * SEGMENT + 5])
def test_segments_score_every_token_after_the_first_once(count):
    inputs, targets = segments_of(torch.arange(count, dtype=torch.int32))
    scored = targets != IGNORED
    assert targets[scored].tolist() == list(range(1, count))
    assert inputs[scored].tolist() == list(range(count - 1))
