"""Data files of `tag` and `classify`: every form read, every fault told with its place, splits that stay."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.source import DataOptions
from rnnprune.tasks.tag.items import Item, split_of
from rnnprune.tasks.tag.lines import read_lines
from rnnprune.tasks.tag.model import ClassifyModelSpec, TagModelSpec
from rnnprune.tasks.tag.task import ClassifyTask, TagTask
from rnnprune.tasks.tag.tensors import read_tensors

ROWS = [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize(
    ("line", "level", "inputs", "labels"),
    [
        ("the cat\tDT NN", "word", ("the", "cat"), ("DT", "NN")),
        ("the  cat\tDT NN\ttest\r", "word", ("the", "cat"), ("DT", "NN")),
        ("a b\tX Y Z", "char", ("a", " ", "b"), ("X", "Y", "Z")),
        ('{"tokens": ["a b", "c"], "labels": [1, 0]}', "word", ("a b", "c"), ("1", "0")),
        ('{"text": "ab", "labels": ["X", "Y"], "other": 1}', "char", ("a", "b"), ("X", "Y")),
        (json.dumps({"features": ROWS, "labels": ["s", "n"]}), "word", ROWS, ("s", "n")),
        ('{"features": "a.npy", "labels": ["s", "n"]}', "word", ROWS, ("s", "n")),
    ],
)
def test_a_line_for_every_form(tmp_path, line, level, inputs, labels):
    np.save(tmp_path / "a.npy", np.array(ROWS))
    path = tmp_path / "data"
    path.write_bytes(b"\xef\xbb\xbf\n" + line.encode() + b"\n \n")
    (item,), bad = read_lines(path, level, per_step=True)
    assert bad == []
    assert item.where == "line 2"
    assert item.labels == labels
    np.testing.assert_array_equal(item.inputs, inputs)


def test_one_label_for_the_whole_line(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text('guten tag\tde\n{"text": "good day", "label": "en", "key": "k", "split": "validation"}\n')
    items, _ = read_lines(path, "word", per_step=False)
    assert [item.labels for item in items] == [("de",), ("en",)]
    assert (items[1].key, items[1].split) == ("k", "validation")


BAD_LINES = [
    ("only one column", "expected text, tab, labels"),
    ("a b c\tX Y", "3 steps and 2 labels: expected one label per step"),
    ("\tX", "the sequence is empty"),
    ("a b\tX Y\tdev", "split 'dev': expected one of train, validation, test"),
    ('{"tokens": ["a"], "labels": ["X"]', "not valid JSON"),
    ('{"labels": ["X"]}', "expected one of tokens, text, features; found labels"),
    ('{"tokens": ["a"], "text": "a", "labels": ["X"]}', "expected one of tokens, text, features"),
    ('{"tokens": ["a"], "label": "X"}', "no `labels`; found tokens, label"),
    ('{"tokens": "a", "labels": ["X"]}', "tokens 'a': expected a list of strings"),
    ('{"tokens": ["a"], "labels": "X"}', "labels 'X': expected a list"),
    ('{"tokens": ["a"], "labels": [null]}', "label None: expected a name"),
    ('{"tokens": ["a"], "labels": ["X"], "key": 3}', "key 3: expected a string"),
    ('{"text": 5, "labels": ["X"]}', "text 5: expected a string"),
    ('{"features": [[1, 2], [3]], "labels": ["X", "Y"]}', "rows of 1 and of 2 numbers"),
    ('{"features": [[1, NaN]], "labels": ["X"]}', "feature 1 of step 0 is nan"),
    ('{"features": [[1e300]], "labels": ["X"]}', "feature 0 of step 0 is inf"),
    ('{"features": [["1"]], "labels": ["X"]}', "features of type <U1: expected numbers"),
    ('{"features": [1, 2], "labels": ["X"]}', "expected rows of numbers"),
    ('{"features": [[]], "labels": ["X"]}', r"features of shape \[1, 0\]"),
    ('{"features": "gone.npy", "labels": ["X"]}', r"gone\.npy cannot be read as an \.npy file"),
    ('{"features": "zipped.npy", "labels": ["X"]}', r"zipped\.npy cannot be read as an \.npy file"),
    ('{"features": "code.npy", "labels": ["X"]}', r"code\.npy cannot be read as an \.npy file.*allow_pickle"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_is_told_by_its_number_and_can_be_left_out(tmp_path, line, reason):
    with (tmp_path / "zipped.npy").open("wb") as file:
        np.savez(file, a=np.ones((1, 1)))
    np.save(tmp_path / "code.npy", np.array([{}], dtype=object), allow_pickle=True)
    is_framed = '"features"' in line
    good = [
        json.dumps({"features": ROWS, "labels": ["X", "Y"]}) + "\n" if is_framed else f"a{i} b\tX Y\n"
        for i in range(40)
    ]
    if is_framed:
        good = [json.dumps({"features": [[i, 1], [0, i]], "labels": ["X", "Y"]}) + "\n" for i in range(40)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(good[:20]) + line + "\n" + "".join(good[20:]))
    with pytest.raises(InputRefused, match=rf"data\.jsonl, line 21: .*{reason}.*1 of 41 items.*--skip-bad"):
        TagTask.from_file(path, TagModelSpec())
    task = TagTask.from_file(path, TagModelSpec(), DataOptions(skip_bad=True))
    (note,) = task.notes
    assert "left out 1 of 41 items" in note
    assert "line 21" in note
    assert sum(map(len, task.corpus.splits.values())) == 40


def write_words(path, count=60):
    """Classes by the first letter; split by content."""
    path.write_text("".join(f"{'ab'[i % 2]}{i}\t{'AB'[i % 2]}\n" for i in range(count)))
    return path


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("c1\tC\ttest\n", r"line 61: the label 'C' is not among the 2 that the model knows"),
        ('{"features": [[1]], "label": "A"}\n', r"line 61: steps of 1 features: expected tokens"),
    ],
)
def test_what_only_shows_beside_the_rest_is_told_too(tmp_path, extra, reason):
    path = write_words(tmp_path / "words.tsv")
    path.write_text(path.read_text() + extra)
    with pytest.raises(InputRefused, match=reason):
        ClassifyTask.from_file(path, ClassifyModelSpec(level="char"))


def test_a_label_that_the_checkpoint_does_not_know_is_told_with_its_line(tmp_path):
    path = write_words(tmp_path / "words.tsv")
    entry = ClassifyTask.from_file(path, ClassifyModelSpec(level="char")).metadata
    other = tmp_path / "other.tsv"
    other.write_text(path.read_text() + "c1\tC\ttrain\n")
    with pytest.raises(InputRefused, match=r"other\.tsv, line 61: the label 'C' is not among the 2"):
        ClassifyTask.from_checkpoint(entry, DataOptions(other))
    task = ClassifyTask.from_checkpoint(entry, DataOptions(other, skip_bad=True))
    assert len(task.notes) == 2  # another file, and what was left out
    with pytest.raises(UsageError, match="--seq-len belongs to the task lm"):
        ClassifyTask.from_checkpoint(entry, DataOptions(length=3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no item in it that can be used"),
        ("x\n", "no item in it that can be used; line 1: expected text, tab, label"),
        ("a\tA\n" * 9, "the training split holds only the label 'A'"),
        ("a\tA\ttest\n", "the training split holds no item"),
        ("a\tA\ttrain\nb\tB\ttrain\nb\tB\ttest\n", "no item for the split 'validation'; use more data, or give"),
        ("\xff", "the byte at offset 0 is not UTF-8"),
    ],
)
def test_files_with_too_little_in_them(tmp_path, content, message):
    path = tmp_path / "little.tsv"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(InputRefused, match=message):
        ClassifyTask.from_file(path, ClassifyModelSpec())
    with pytest.raises(UsageError, match="does not exist"):
        ClassifyTask.from_file(tmp_path / "gone.tsv", ClassifyModelSpec())


# safetensors


def tensors(**more):
    return {
        "a.features": np.array(ROWS, np.float32),
        "a.labels": np.array([1, 0]),
        "b.features": np.array(ROWS[:1], np.float16),
        "b.labels": np.array([1], np.uint8),
    } | more


def test_items_of_a_safetensors_file(tmp_path):
    path = tmp_path / "frames.safetensors"
    metadata = {"labels": '["n", "s"]', "splits": '{"b": "test"}'}
    safetensors.numpy.save_file(tensors(), path, metadata)
    items, bad = read_tensors(path, per_step=True)
    assert bad == []
    assert [(item.key, item.labels, item.split) for item in items] == [("a", ("s", "n"), None), ("b", ("s",), "test")]
    np.testing.assert_array_equal(items[0].inputs, ROWS)
    safetensors.numpy.save_file({"a.features": np.ones((2, 1)), "a.label": np.array([12])}, path)
    assert [item.labels for item in read_tensors(path, per_step=False)[0]] == [("12",)]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"a.labels": np.array([1, 2])}, "a.labels holds 2, and the file names 2 labels"),
        ({"a.labels": np.array([1])}, "2 steps and 1 labels: expected one label per step"),
        ({"a.labels": np.array([1.0, 0.0])}, "a.labels is float64 [2]: expected whole numbers"),
        ({"a.labels": np.array([[1, 0]])}, "a.labels is int64 [1, 2]: expected whole numbers, [steps]"),
        ({"a.features": np.full((2, 2), np.inf)}, "feature 0 of step 0 is inf"),
        ({"a.features": np.ones(4)}, "features of shape [4]: expected [steps, features]"),
        ({"c.features": np.ones((1, 2))}, "there is no tensor c.labels"),
    ],
)
def test_bad_tensors_are_told_by_key(tmp_path, more, reason):
    path = tmp_path / "frames.safetensors"
    safetensors.numpy.save_file(tensors(**more), path, {"labels": '["n", "s"]'})
    _, ((where, found),) = read_tensors(path, per_step=True)
    assert where == f"item {next(iter(more))[0]}"
    assert reason in found


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"labels": "["}, "its metadata is not JSON"),
        ({"labels": '{"a": 1}'}, "metadata `labels`: expected a JSON list of names"),
        ({"splits": "[]"}, "metadata `splits`: expected a JSON object"),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, metadata, message):
    path = tmp_path / "frames.safetensors"
    safetensors.numpy.save_file(tensors(), path, metadata)
    with pytest.raises(InputRefused, match=message):
        read_tensors(path, per_step=True)
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputRefused, match="cannot be read as safetensors"):
        read_tensors(path, per_step=True)


# splits


def test_the_split_is_a_hash_of_the_key_or_of_the_inputs():
    for number in range(50):
        word = f"w{number}"
        part = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 10
        expected = {0: "test", 1: "validation"}.get(part, "train")
        assert split_of(Item("", (word,), ("A",))) == expected
        assert split_of(Item("", ("x",), ("A",), key=word)) == expected
        assert split_of(Item("", (word,), ("A",), split="test")) == "test"
    frames = np.array(ROWS, np.float32)
    assert split_of(Item("here", frames, ("A",))) == split_of(Item("there", frames.copy(), ("B",)))


def test_labels_and_vocabulary_come_from_the_training_split_alone(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("b b a\t10\ttrain\na c\t9\ttrain\n<unk> b\tx\ttrain\nzzz\t9\ttest\na\t10\tvalidation\n")
    task = ClassifyTask.from_file(path, ClassifyModelSpec(), vocab=2)
    assert task.spec.labels == ("9", "10", "x")
    assert task.spec.vocabulary == ("<unk>", "b", "a")
    (unseen,) = task.corpus.splits["test"]
    assert unseen.inputs.tolist() == [0]
    assert task.corpus.splits["train"][1].inputs.tolist() == [2, 0]
