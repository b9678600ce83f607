"""The language model task against plain torch and slow loops."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.tasks.protocol import Task

SMALL = LmModelSpec(hidden=8, embedding=6)
CELLS = ("lstm", "gru", "rnn")


class Uniform(nn.Module):
    """Every next token equally likely."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(vocab))

    def forward(self, tokens, state=None):
        return self.scores.expand(*tokens.shape, -1), state


def slow_mean_nll(model: nn.Module, tokens: torch.Tensor) -> float:
    """One token at a time, the state carried along by hand."""
    state, total = None, 0.0
    for here, following in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
        logits, state = model(torch.tensor([[here]]), state)
        total -= float(torch.log_softmax(logits[0, 0].double(), 0)[following])
    return total / (len(tokens) - 1)


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_model_is_plain_torch_with_the_shapes_that_the_spec_tells(letters, cell, layers):
    spec = LmModelSpec(cell=cell, hidden=8, layers=layers, embedding=6, dropout=0.1)
    task = LmTask.from_text(letters, spec)
    model = task.build_model()
    assert isinstance(task, Task)
    assert type(model.rnn) is {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
    plain = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](6, 8, layers).state_dict()
    vocab = len(task.spec.vocabulary)
    expected = {f"rnn.{name}": value.shape for name, value in plain.items()}
    expected |= {"embedding.weight": (vocab, 6), "output.weight": (vocab, 8), "output.bias": (vocab,)}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected
    copy.deepcopy(model).load_state_dict(pickle.loads(pickle.dumps(model)).state_dict())


def test_the_loss_is_the_cross_entropy_of_the_shifted_window(letters):
    task = LmTask.from_text(letters, SMALL, batch_size=3, length=5)
    model = task.build_model()
    batch = next(iter(task.train_batches(epoch=0, seed=1, rank=0, world_size=1)))
    assert batch.shape == (3, 6)
    hidden, _ = model.rnn(model.embedding(batch[:, :5]))
    by_hand = [
        -torch.log_softmax(model.output(hidden[row, time]), 0)[batch[row, time + 1]]
        for row in range(3)
        for time in range(5)
    ]
    loss = task.loss(model, batch)
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_half_precision_models_are_scored_in_float32(letters):
    task = LmTask.from_text(letters, SMALL, batch_size=2, length=5)
    model = task.build_model().to(torch.bfloat16)
    batch = next(iter(task.train_batches(epoch=0, seed=0)))
    assert task.loss(model, batch).dtype == torch.float32


# -- the metric --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_uniform_model_takes_log2_of_the_vocabulary_bits(letters, split):
    task = LmTask.from_text(letters, SMALL)
    vocab = len(task.spec.vocabulary)
    assert vocab == 11  # ten characters and <unk>
    assert task.evaluate(Uniform(vocab), split) == {"bpc": pytest.approx(math.log2(11), rel=1e-6)}


def test_a_uniform_model_is_as_perplexed_as_the_vocabulary_is_large(words):
    task = LmTask.from_text(words, LmModelSpec(level="word", hidden=8, embedding=6), vocab=15)
    assert task.metric == "perplexity"
    assert task.evaluate(Uniform(17), "test") == {"perplexity": pytest.approx(17, rel=1e-6)}


@pytest.mark.parametrize("cell", CELLS)
def test_perplexity_and_bpc_equal_a_slow_loop_with_carried_state(letters, words, cell):
    by_char = LmTask.from_text(letters, LmModelSpec(cell=cell, hidden=8, embedding=6, layers=2), length=7)
    by_word = LmTask.from_text(words, LmModelSpec("word", cell, 8, 1, 6), length=7, batch_size=2)
    with torch.no_grad():
        model = by_char.build_model().eval()
        bits = slow_mean_nll(model, by_char.corpus.validation) / math.log(2)
        assert by_char.evaluate(model, "validation")["bpc"] == pytest.approx(bits, rel=1e-5)
        model = by_word.build_model().eval()
        perplexity = math.exp(slow_mean_nll(model, by_word.corpus.test))
        assert by_word.evaluate(model, "test")["perplexity"] == pytest.approx(perplexity, rel=1e-5)


def test_the_metric_is_repeatable_and_does_not_depend_on_streams_or_length(letters, monkeypatch):
    monkeypatch.setattr("rnnprune.tasks.text.SEGMENT", 16)  # several segments, the last one short
    model = LmTask.from_text(letters, SMALL).build_model().eval()
    figures = [
        LmTask.from_text(letters, SMALL, batch_size=streams, length=length).evaluate(model, "test")["bpc"]
        for streams, length in [(1, 3), (2, 5), (4, 16), (100, 100)]
    ]
    assert figures == pytest.approx([figures[0]] * 4, rel=1e-6)
    task = LmTask.from_text(letters, SMALL)
    assert task.evaluate(model, "test") == task.evaluate(model, "test")


def test_a_model_that_went_astray_has_infinite_perplexity_instead_of_an_exception(words):
    task = LmTask.from_text(words, LmModelSpec(level="word", hidden=8, embedding=6))
    model = Uniform(len(task.spec.vocabulary))
    model.scores.data[0] = 1e6  # certain of <unk>, which never comes
    assert task.evaluate(model, "test") == {"perplexity": math.inf}


def test_training_lowers_the_metric_on_a_text_with_a_pattern(tmp_path):
    path = tmp_path / "pattern.txt"
    path.write_text("abcdefg\n" * 200)
    task = LmTask.from_text(path, LmModelSpec(cell="gru", hidden=16, embedding=8), batch_size=8, length=16)
    model = task.build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for epoch in range(6):
        for batch in task.train_batches(epoch=epoch, seed=0):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
    assert task.evaluate(model.eval(), "test")["bpc"] < 0.3


def test_the_metric_equals_torchs_cross_entropy_over_the_whole_split(letters):
    task = LmTask.from_text(letters, SMALL)
    model = task.build_model().eval()
    tokens = task.corpus.test.long()
    with torch.no_grad():
        nll = F.cross_entropy(model(tokens[None, :-1])[0][0], tokens[1:])
    assert task.evaluate(model, "test")["bpc"] == pytest.approx(float(nll) / math.log(2), rel=1e-5)


# -- the batches -------------------------------------------------------------------------------------------------------


def batches_of(task: LmTask, **arguments: int) -> list[list[list[int]]]:
    return [batch.tolist() for batch in task.train_batches(**{"epoch": 0, "seed": 0} | arguments)]


def test_batches_are_a_pure_function_of_epoch_and_seed(letters):
    task = LmTask.from_text(letters, SMALL, batch_size=4, length=10)
    first = batches_of(task, epoch=3, seed=5)
    torch.manual_seed(99)
    task.build_model()
    assert batches_of(task, epoch=3, seed=5) == first
    assert batches_of(LmTask.from_text(letters, SMALL, batch_size=4, length=10), epoch=3, seed=5) == first
    assert batches_of(task, epoch=4, seed=5) != first
    assert batches_of(task, epoch=3, seed=6) != first


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_get_equally_many_batches_and_disjoint_windows(letters, world_size):
    task = LmTask.from_text(letters, SMALL, batch_size=4, length=10)
    shards = [task.train_batches(epoch=1, seed=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    starts = torch.cat([shard.starts.flatten() for shard in shards])
    assert len({len(shard) for shard in shards}) == 1
    assert len(starts.unique()) == len(starts)
    assert len(starts) > 1800 / 10 - 1 - 4 * world_size  # only what fills no batch is skipped


def test_a_text_with_fewer_windows_than_a_batch_gives_one_smaller_batch(letters):
    task = LmTask.from_text(letters, SMALL, batch_size=1000, length=100)
    (batch,) = task.train_batches(epoch=0, seed=0)
    assert batch.shape == (17, 101)
    with pytest.raises(UsageError, match="17 training windows cannot feed 18 processes"):
        task.train_batches(epoch=0, seed=0, rank=0, world_size=18)


def test_impossible_ranks_and_sizes_are_usage_errors(letters):
    task = LmTask.from_text(letters, SMALL)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        task.train_batches(epoch=0, seed=0, rank=2, world_size=2)
    with pytest.raises(UsageError, match="sequence length 0: both must be at least 1"):
        LmTask.from_text(letters, SMALL, length=0)
    with pytest.raises(UsageError, match="vocab: expected a whole number of at least 1, found 0"):
        LmTask.from_text(letters, SMALL, vocab=0)


# -- the data ----------------------------------------------------------------------------------------------------------


def test_characters_first_met_after_the_training_split_are_unk(tmp_path):
    path = tmp_path / "late.txt"
    path.write_text("ab" * 45 + "日" * 10, encoding="utf-8")
    task = LmTask.from_text(path, SMALL, length=10)
    assert task.spec.vocabulary == ("<unk>", "a", "b")
    assert task.corpus.validation.tolist() == [0] * 5
    assert task.corpus.test.tolist() == [0] * 5


@pytest.mark.parametrize(("characters", "length"), [(0, 5), (39, 5), (111, 100)])
def test_too_short_a_text_is_refused(tmp_path, characters, length):
    path = tmp_path / "short.txt"
    path.write_text("x" * characters)
    with pytest.raises(InputRefused, match=rf"short\.txt: {characters} characters are too few.*longer text or a short"):
        LmTask.from_text(path, SMALL, length=length)


@pytest.mark.parametrize(("characters", "length"), [(40, 5), (113, 100), (223, 199)])
def test_just_long_enough_a_text_trains_and_scores(tmp_path, characters, length):
    path = tmp_path / "enough.txt"
    path.write_text("xy" * (characters // 2) + "x" * (characters % 2))
    task = LmTask.from_text(path, SMALL, length=length)
    model = task.build_model().eval()
    for epoch in range(20):
        assert all(torch.isfinite(task.loss(model, batch)) for batch in task.train_batches(epoch=epoch, seed=0))
    for split in ("validation", "test"):
        assert math.isfinite(task.evaluate(model, split)["bpc"])
