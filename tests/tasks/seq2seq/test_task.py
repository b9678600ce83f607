"""The seq2seq task: loss, batches, metric, the checkpoint's entry, and the whole path on words backwards."""

import json
import math
import sys

import pytest
import torch
from torch import nn

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
from rnnprune.tasks.seq2seq.task import Seq2SeqTask
from rnnprune.tasks.seq2seq.tokens import END, PAD, SPECIAL, START, Tokens
from rnnprune.tasks.source import DataOptions

SMALL = Seq2SeqModelSpec(hidden=8, embedding=6)


class Oracle(nn.Module):
    """Knows how to spell backwards, but not words with a d."""

    def translate(self, texts):
        return [text if "d" in text else text[::-1] for text in texts]


def test_the_loss_is_the_cross_entropy_of_every_true_token(backwards):
    task = Seq2SeqTask.from_pairs(backwards, SMALL, DataOptions(batch_size=5))
    assert isinstance(task, Task)
    model = task.build_model()
    batch = next(iter(task.train_batches(epoch=0, seed=1)))
    losses = []
    for source, target in zip(batch.source, batch.target, strict=True):
        source, target = source[source != PAD], target[target != PAD]
        assert source[-1] == target[-1] == END
        assert model.source.decode(source[:-1].tolist()) == model.target.decode(target[:-1].tolist())[::-1]
        logits = model(source[None], torch.tensor([[START, *target[:-1]]]))[0]
        losses += [-torch.log_softmax(row, 0)[token] for row, token in zip(logits, target, strict=True)]
    torch.testing.assert_close(task.loss(model, batch), torch.stack(losses).mean())


def test_the_vocabularies_and_the_longest_answer_are_the_training_splits(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("low\ta b\nnewest\ta c c\nhaus\tlong long long long\nw8\tz\n")  # haus: test, w8: validation
    task = Seq2SeqTask.from_pairs(path, Seq2SeqModelSpec("char", "word", "WER", hidden=8), vocab=2)
    assert task.spec.source_vocabulary == (*SPECIAL, *sorted(set("lownewest")))
    assert task.spec.target_vocabulary == (*SPECIAL, "a", "c")
    assert task.spec.longest == 4


def test_figures_are_those_of_the_split(backwards):
    task = Seq2SeqTask.from_pairs(backwards, SMALL)
    for split, references in (("validation", task.corpus.validation), ("test", task.corpus.test)):
        wrong = sum("d" in text and text != text[::-1] for text in references)
        assert task.evaluate(Oracle(), split)["SER"] == pytest.approx(100 * wrong / len(references))


def test_several_references_are_scored_by_the_best(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("low\tx\nw8\tz\nhaus\tnope\nhaus\thaus\nhaus\tnever\n")
    task = Seq2SeqTask.from_pairs(path, SMALL)
    oracle = Oracle()
    oracle.translate = list
    assert task.evaluate(oracle, "test") == {"CER": 0.0, "SER": 0.0}


@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_are_a_pure_function_and_ranks_share_them(backwards, world_size):
    task = Seq2SeqTask.from_pairs(backwards, SMALL, DataOptions(batch_size=16))

    def shards(epoch):
        batches = [task.train_batches(epoch=epoch, seed=2, rank=r, world_size=world_size) for r in range(world_size)]
        return [[batch.source.tolist() for batch in shard] for shard in batches]

    assert shards(1) == shards(1)
    assert shards(1) != shards(2)
    assert len({len(shard) for shard in shards(1)}) == 1


def test_neighbours_in_length_share_a_batch(backwards):
    task = Seq2SeqTask.from_pairs(backwards, SMALL, DataOptions(batch_size=16))
    padding = [float((batch.target == PAD).float().mean()) for batch in task.train_batches(epoch=0, seed=0)]
    assert sum(padding) / len(padding) < 0.05


@pytest.mark.parametrize(
    ("level", "metric", "goal"), [("char", "CER", "min"), ("word", "WER", "min"), ("piece", "BLEU", "max")]
)
def test_the_entry_survives_json_and_a_weights_only_load(backwards, tmp_path, level, metric, goal):
    if metric == "BLEU":
        pytest.importorskip("sacrebleu", reason="the extra `translation` is not installed")
    task = Seq2SeqTask.from_pairs(backwards, Seq2SeqModelSpec(level, level, metric, "rnn", 8), vocab=30)
    assert (task.metric, task.goal) == (metric, goal)
    torch.save({"rnnprune": task.metadata}, tmp_path / "ckpt.pt")
    loaded = torch.load(tmp_path / "ckpt.pt", weights_only=True)["rnnprune"]
    for entry in (json.loads(json.dumps(task.metadata)), loaded):
        again = Seq2SeqTask.from_checkpoint(entry)
        assert (again.spec, again.metadata, again.notes) == (task.spec, task.metadata, ())
        assert again.train == task.train
    narrow = {**task.metadata, "batches": {"batch_size": 3}}
    assert Seq2SeqTask.from_checkpoint(narrow).batch_size == 3


HOSTILE = [
    ("hidden", 7, "hidden: expected an even number"),
    ("hidden", 2**20, "over the limit of 2,147,483,648"),
    ("beam", 0, "beam: expected a whole number from 1 to 1,000, found 0"),
    ("longest", 10**9, "longest: expected a whole number from 1 to 100,000"),
    ("attention", "os.system", "attention: expected one of dot, additive; found 'os.system'"),
    ("metric", "PER", "metric: expected one of CER, WER, BLEU"),
    ("source_vocabulary", ["a"], "source_vocabulary: expected to begin with <pad>"),
    ("target_vocabulary", [*SPECIAL, "ab"], "target_vocabulary: expected single characters, found 'ab'"),
    ("target_vocabulary", [*SPECIAL, "a", "a"], "target_vocabulary: the same token stands in it twice"),
    ("dropout", math.nan, "dropout: expected 0 <= dropout < 1"),
]


@pytest.mark.parametrize(("key", "value", "message"), HOSTILE)
def test_a_damaged_entry_is_refused_by_name(backwards, key, value, message):
    entry = json.loads(json.dumps(Seq2SeqTask.from_pairs(backwards, SMALL).metadata))
    entry["model"][key] = value
    with pytest.raises(InputRefused, match=message):
        Seq2SeqTask.from_checkpoint(entry)


def test_what_does_not_belong_here_is_a_usage_error(backwards, monkeypatch):
    with pytest.raises(UsageError, match="--seq-len belongs to the task lm"):
        Seq2SeqTask.from_pairs(backwards, SMALL, DataOptions(length=5))
    with pytest.raises(UsageError, match="vocab: expected a whole number of at least 1, found 0"):
        Seq2SeqTask.from_pairs(backwards, SMALL, vocab=0)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UsageError, match="sacrebleu, which is not installed"):
        Seq2SeqTask.from_pairs(backwards, Seq2SeqModelSpec(metric="BLEU", hidden=8))


def test_retold_pairs_hold_the_teachers_answers_and_leave_the_scores_alone(tmp_path):
    path = tmp_path / "pairs.tsv"
    words = ["".join("abcd"[(n >> shift) & 3] for shift in (0, 2, 4)) for n in range(64)]
    path.write_text("".join(f"{word}\t{target}\n" for word in words for target in (word[::-1], word)))
    task = Seq2SeqTask.from_pairs(path, Seq2SeqModelSpec(hidden=8, embedding=4, beam=2))
    teacher = task.build_model().eval()
    retold = task.retold(teacher)
    assert len(retold.train) == len(task.train)
    target = Tokens(task.spec.target_level, task.spec.target_vocabulary)
    for (source, answer), pair in zip(retold.train, task.corpus.train, strict=True):
        assert source == Tokens("char", task.spec.source_vocabulary).encode(pair.source)
        assert [target.decode(answer)] == teacher.translate([pair.source], beam=2)
    assert retold.evaluate(teacher, "test") == task.evaluate(teacher, "test")
    assert task.train != retold.train, "the task itself is as it was"
