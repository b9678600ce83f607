"""What a manifest may say, line by line."""

import re
from collections import Counter

import pytest

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.ctc.manifest import BadLine, left_out, read_manifest, split_of

GOOD = {
    "tsv": "a.wav\tone\nsub/b.wav\ttwo words\n",
    "jsonl": '{"audio": "a.wav", "text": "one"}\n{"audio_filepath": "sub/b.wav", "text": "two words", "duration": 1.5}',
    "line ends, a byte order mark and empty lines": "\ufeffa.wav\tone\r\n\r\n \nsub/b.wav\ttwo words\r\n",
    "white space and composed letters": "a.wav\t one \nsub/b.wav\ttwo  words",
    "both": 'a.wav\tone\n{"text": "two words", "audio": "sub/b.wav"}\n',
}


@pytest.mark.parametrize("name", GOOD)
def test_tsv_and_jsonl_say_the_same(tmp_path, name):
    path = tmp_path / "manifest"
    path.write_bytes(GOOD[name].encode())
    utterances, bad = read_manifest(path)
    assert [(u.audio, u.text) for u in utterances] == [
        (tmp_path / "a.wav", "one"),
        (tmp_path / "sub/b.wav", "two words"),
    ]
    assert bad == []


def test_letters_are_composed_and_absolute_paths_stay(tmp_path):
    path = tmp_path / "manifest"
    path.write_text("/there/a.wav\tperche\u0301\n", encoding="utf-8")
    ((utterance,), _) = read_manifest(path)
    assert (str(utterance.audio), utterance.text) == ("/there/a.wav", "perch\u00e9")


BAD = {
    "a.wav": "one tab between them, found 0 tabs",
    "a.wav\tone\ttwo": "found 2 tabs",
    "a.wav\t": "the transcript is empty",
    "a.wav\t  ": "the transcript is empty",
    "\tone": "the audio path is empty",
    "a\0.wav\tone": "holds a zero byte",
    '{"audio": "a.wav"': "not valid JSON",
    "{" * 5000: "not valid JSON",
    '{"a":' * 100000: "not valid JSON",
    '{"audio": "a.wav"}': "expected the strings `audio` and `text`, found audio",
    '{"audio": 3, "text": "one"}': "expected the strings",
    '{"audio": "a.wav", "text": null}': "expected the strings",
    "{}": "found no key",
    '{"audio": "a.wav", "text": ""}': "the transcript is empty",
}


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_known_by_its_number_and_reason(tmp_path, line):
    path = tmp_path / "manifest"
    path.write_text(f"a.wav\tone\n\n{line}\nb.wav\ttwo\n")
    utterances, bad = read_manifest(path)
    assert [u.line for u in utterances] == [1, 4]
    assert [b.line for b in bad] == [3]
    assert BAD[line] in bad[0].reason


def test_a_file_that_is_none_or_not_utf8(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_manifest(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"a.wav\tperch\xe9\n")
    with pytest.raises(InputRefused, match="the byte at offset 11 is not UTF-8"):
        read_manifest(tmp_path / "latin")


def test_the_split_hangs_on_the_text_alone():
    texts = [f"text {i}" for i in range(3000)]
    counts = Counter(map(split_of, texts))
    assert counts[None] == pytest.approx(2400, abs=70)
    assert counts["test"] == pytest.approx(300, abs=50)
    assert [split_of(text) for text in ("hello", "goodbye", "thank you")] == ["test", "validation", None]


def test_bad_lines_are_counted_and_the_first_listed(tmp_path):
    bad = [BadLine(line, f"reason {line}") for line in range(9, 0, -1)]
    (note,) = left_out(tmp_path / "m", bad, 30, skip=True)
    assert note.startswith(f"left out 9 of 30 lines: {tmp_path}/m:1: reason 1; ")
    assert note.endswith("m:5: reason 5; and 4 more")
    assert left_out(tmp_path / "m", [], 30, skip=False) == ()
    with pytest.raises(InputRefused, match=r"m:1: reason 1; .* and 4 more; 9 of 30 lines .* pass --skip-bad"):
        left_out(tmp_path / "m", bad, 30, skip=False)
    with pytest.raises(InputRefused, match="no line is left"):
        left_out(tmp_path / "m", bad, 9, skip=True)


def test_a_reason_cannot_write_to_the_terminal(tmp_path):
    (note,) = left_out(tmp_path / "m", [BadLine(1, "\x1b[2J")], 2, skip=True)
    assert re.search(r"[^\x20-\x7e]", note.replace(str(tmp_path), "")) is None
