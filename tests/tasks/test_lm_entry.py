"""What a checkpoint of the language model says of itself: it survives, it is checked, and data that moved is told."""

import json

import pytest
import torch

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.tasks.source import DataOptions

SMALL = LmModelSpec(hidden=8, embedding=6)


@pytest.mark.parametrize("level", ["char", "word"])
def test_the_entry_survives_json_and_a_weights_only_load(words, tmp_path, level):
    task = LmTask.from_text(words, LmModelSpec(level=level, cell="gru", hidden=8, embedding=6, dropout=0.25), vocab=12)
    torch.save({"rnnprune": task.metadata}, tmp_path / "ckpt.pt")
    for entry in (
        json.loads(json.dumps(task.metadata)),
        torch.load(tmp_path / "ckpt.pt", weights_only=True)["rnnprune"],
    ):
        again = LmTask.from_checkpoint(entry)
        assert again.spec == task.spec
        assert again.metadata == task.metadata
        assert torch.equal(again.corpus.test, task.corpus.test)
        assert again.notes == ()


def test_the_entry_has_exactly_the_keys_of_the_design(letters):
    entry = LmTask.from_text(letters, SMALL).metadata
    assert set(entry) == {"task", "model", "data", "batches"}
    assert set(entry["data"]) == {"path", "sha256"}
    assert entry["data"]["path"] == letters.as_posix()


def test_batches_are_those_of_the_training_unless_others_are_asked_for(letters):
    entry = LmTask.from_text(letters, SMALL, batch_size=4, length=20).metadata
    before_they_were_recorded = {key: value for key, value in entry.items() if key != "batches"}
    for stored, options, sizes, notes in (
        (entry, DataOptions(), (4, 20), ("--batch-size 4 --seq-len 20, as in training",)),
        (entry, DataOptions(batch_size=8), (8, 20), ("--seq-len 20, as in training",)),
        (entry, DataOptions(batch_size=8, length=9), (8, 9), ()),
        (before_they_were_recorded, DataOptions(), (32, 100), ()),
    ):
        again = LmTask.from_checkpoint(stored, options)
        assert ((again.batch_size, again.length), again.notes) == (sizes, notes)


def test_data_that_moved_asks_for_the_flag(letters):
    entry = LmTask.from_text(letters, SMALL).metadata
    moved = letters.rename(letters.with_name("moved.txt"))
    with pytest.raises(UsageError, match=r"trained on .*letters\.txt, which is not here; pass --data FILE"):
        LmTask.from_checkpoint(entry)
    assert LmTask.from_checkpoint(entry, DataOptions(moved)).notes == ()


def test_data_that_changed_is_an_error_by_itself_and_a_note_when_asked_for(letters):
    task = LmTask.from_text(letters, SMALL)
    letters.write_text(letters.read_text() + "more")
    with pytest.raises(UsageError) as caught:
        LmTask.from_checkpoint(task.metadata)
    message = str(caught.value)
    assert task.corpus.sha256 in message
    assert "pass --data" in message
    again = LmTask.from_checkpoint(task.metadata, DataOptions(letters))
    assert again.corpus.sha256 in message
    assert again.spec == task.spec
    (note,) = again.notes
    assert "is not the text that the model was trained on" in note
    assert again.metadata["data"]["sha256"] != task.metadata["data"]["sha256"]


HOSTILE = [
    ("model", "_target_", "os.system", r"rnnprune\.model: unknown '_target_'"),
    ("model", "hidden", "8", r"rnnprune\.model\.hidden: expected int, found str"),
    ("model", "hidden", True, r"rnnprune\.model\.hidden: expected int, found bool"),
    ("model", "hidden", 8.0, r"rnnprune\.model\.hidden: expected int, found float"),
    ("model", "hidden", 0, r"hidden: expected a whole number from 1 to 1,048,576, found 0"),
    pytest.param("model", "hidden", 10**5000, r"hidden: expected .*, found one beyond 64 bits", id="unprintable"),
    ("model", "hidden", 2**20, r"over the limit of 2,147,483,648"),
    ("model", "layers", 10**9, r"layers: expected a whole number from 1 to 64, found 1000000000"),
    ("model", "dropout", 0, r"rnnprune\.model\.dropout: expected float, found int"),
    ("model", "cell", "Transformer", r"cell: expected one of rnn, gru, lstm; found 'Transformer'"),
    ("model", "level", "byte", r"level: expected one of char, word; found 'byte'"),
    ("model", "dropout", float("nan"), r"dropout: expected 0 <= dropout < 1, found nan"),
    ("model", "vocabulary", "abc", r"rnnprune\.model\.vocabulary: expected list, found str"),
    ("model", "vocabulary", [], r"rnnprune\.model\.vocabulary: the checkpoint holds an empty one"),
    ("model", "vocabulary", ["<unk>", 3], r"rnnprune\.model\.vocabulary\[1\]: expected str, found int"),
    ("model", "vocabulary", ["a", "b"], r"vocabulary: expected to begin with <unk>"),
    ("model", "vocabulary", ["<unk>", "a", "a"], r"vocabulary: the same token stands in it twice"),
    ("model", "vocabulary", ["<unk>", "ab"], r"vocabulary: expected single characters, found 'ab'"),
    ("data", "path", 3, r"rnnprune\.data\.path: expected str, found int"),
    ("data", "sha256", "0" * 63, r"rnnprune\.data\.sha256: expected 64 hexadecimal digits"),
    ("data", "url", "http://", r"rnnprune\.data: unknown 'url'"),
    ("batches", "batch_size", 0, r"rnnprune\.batches\.batch_size: expected 1 to 2,147,483,647"),
    ("batches", "length", 2**31, r"rnnprune\.batches\.length: expected 1 to 2,147,483,647"),
    ("batches", "length", True, r"rnnprune\.batches\.length: expected int, found bool"),
    ("batches", "steps", 1, r"rnnprune\.batches: unknown 'steps'"),
    ("data", "skip_bad", 1, r"rnnprune\.data\.skip_bad: expected bool, found int"),
]


@pytest.mark.parametrize(("part", "key", "value", "message"), HOSTILE)
def test_hostile_entries_are_refused_by_the_name_of_the_key(letters, part, key, value, message):
    entry = LmTask.from_text(letters, SMALL).metadata
    entry[part][key] = value
    with pytest.raises(InputRefused, match=message):
        LmTask.from_checkpoint(entry, DataOptions(letters))


def test_entries_of_another_shape_are_refused(letters):
    entry = LmTask.from_text(letters, SMALL).metadata
    with pytest.raises(InputRefused, match=r"rnnprune: unknown 'code', missing 'data'"):
        LmTask.from_checkpoint({"task": "lm", "model": entry["model"], "code": "import os"})
    with pytest.raises(InputRefused, match=r"rnnprune\.model: expected dict, found list"):
        LmTask.from_checkpoint(entry | {"model": [1]})
    del entry["model"]["cell"]
    with pytest.raises(InputRefused, match=r"rnnprune\.model: missing 'cell'"):
        LmTask.from_checkpoint(entry)


def test_sizes_given_wrongly_on_the_command_line_are_usage_errors():
    with pytest.raises(UsageError, match="embedding: expected a whole number from 1 to 1,048,576, found -1"):
        LmModelSpec(embedding=-1)
    with pytest.raises(UsageError, match=r"dropout: expected 0 <= dropout < 1, found 1\.0"):
        LmModelSpec(dropout=1.0)
