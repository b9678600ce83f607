"""The task on a language of tones: its loss, its figures, its batches, its data refused."""

import json
import sys
from itertools import product

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.builtin import builtin_spec, builtin_task
from rnnprune.tasks.ctc.augment import augmented
from rnnprune.tasks.ctc.corpus import Features, frames_needed
from rnnprune.tasks.ctc.manifest import split_of
from rnnprune.tasks.ctc.model import BLANK, CtcModelSpec
from rnnprune.tasks.ctc.task import CtcTask, Utterances
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.source import DataOptions

SMALL = CtcModelSpec(cell="gru", hidden=8, layers=1, mels=20, channels=4, augment=True)


def task_on(path, **options):
    return CtcTask.from_manifest(SMALL, DataOptions(path, **options))


class Fixed(nn.Module):
    """The same scores for every utterance."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, features, lengths):
        return self.scores.expand(len(features), -1, -1), torch.full_like(lengths, len(self.scores))


# -- loss and figures --------------------------------------------------------------------------------------------------


def test_the_loss_is_minus_the_log_of_all_alignments_per_character(tones):
    scores = torch.randn(4, 3, dtype=torch.float64)
    probabilities = scores.softmax(1)
    wanted = [(1, 2), (2, 2), (1,)]
    nats = 0.0
    for text in wanted:
        total = 0.0
        for path in product(range(3), repeat=4):
            spelled = tuple(label for i, label in enumerate(path) if label and (i == 0 or path[i - 1] != label))
            if spelled == text:
                total += float(torch.stack([probabilities[i, label] for i, label in enumerate(path)]).prod())
        nats -= np.log(total)
    batch = Utterances(
        torch.zeros(3, 4, 20), torch.tensor([4, 4, 4]), torch.tensor([1, 2, 2, 2, 1]), torch.tensor([2, 2, 1])
    )
    loss = task_on(tones).loss(Fixed(scores), batch)
    assert float(loss.detach()) == pytest.approx(nats / 5, rel=1e-5)


def test_figures_are_jiwers_and_do_not_depend_on_the_batch_size(tones):
    tasks = [task_on(tones, batch_size=size) for size in (1, 3, 50)]
    model = tasks[0].build_model().eval()
    with torch.no_grad():
        for norm in model.norms:
            norm.running_mean.normal_()
        figures = [task.evaluate(model, "test") for task in tasks]
        assert figures[1] == figures[2] == figures[0]
        guesses, references = [], []
        for item in tasks[0].corpus.splits["test"]:
            features = tasks[0].corpus.features.read(item.audio)[0]
            (scores,), _ = model(features[None], torch.tensor([len(features)]))
            best = scores.argmax(1).tolist()
            text = [tasks[0].spec.labels[b] for i, b in enumerate(best) if b and (i == 0 or best[i - 1] != b)]
            guesses.append("".join(text))
            references.append(item.text)
    assert figures[0]["CER"] == pytest.approx(100 * jiwer.cer(references, guesses))
    assert figures[0]["WER"] == pytest.approx(100 * jiwer.wer(references, guesses))
    assert set(figures[0]) == {"CER", "WER", "CER_beam8", "WER_beam8"}


def test_a_model_transcribes_files_of_its_own_rate(tones, say):
    task = task_on(tones)
    model, item = task.build_model(), task.corpus.splits["test"][0]
    assert model.transcribe([item.audio, item.audio], beam=3) == 2 * model.transcribe([str(item.audio)], beam=3)
    assert set(model.transcribe([item.audio])[0]) <= set("abcde")
    say(tones.with_name("fast.wav"), "abc", rate=16000)
    with pytest.raises(InputRefused, match=r"fast\.wav: 16000 samples a second, expected 8000"):
        model.transcribe([tones.with_name("fast.wav")])


def test_a_silent_model_errs_in_everything(tones):
    task = task_on(tones)
    silent = torch.zeros(5, 6)
    silent[:, 0] = 100
    assert task.evaluate(Fixed(silent), "validation") == dict.fromkeys(("CER", "WER", "CER_beam8", "WER_beam8"), 100.0)


# -- the batches -------------------------------------------------------------------------------------------------------


def test_batches_are_a_pure_function_and_hold_what_they_say(tones):
    task = task_on(tones, batch_size=7)
    assert isinstance(task, Task)
    first, again = (list(task.train_batches(epoch=2, seed=3)) for _ in range(2))
    other = list(task.train_batches(epoch=3, seed=3))
    assert len(first) == len(task.train_batches(epoch=0, seed=0)) == len(task.corpus.splits["train"]) // 7
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(first[0].features, other[0].features)
    known = {tuple(item.targets.tolist()) for item in task.corpus.splits["train"]}
    for batch in first:
        assert len(batch.features) == len(batch.lengths) == 7
        assert batch.features.shape[1] == batch.lengths.max()
        assert {tuple(part.tolist()) for part in batch.targets.split(batch.target_lengths.tolist())} <= known


def test_without_augmentation_the_features_are_the_files_own(tones):
    task = CtcTask.from_manifest(CtcModelSpec(mels=20), DataOptions(tones))
    own = {tuple(task.corpus.features.read(i.audio)[0].sum(1).tolist()) for i in task.corpus.splits["train"]}
    for batch in task.train_batches(epoch=0, seed=0):
        for features, length in zip(batch.features, batch.lengths, strict=True):
            assert tuple(features[:length].sum(1).tolist()) in own


def test_augmented_features_stay_long_enough_and_are_masked_in_bands_and_stretches():
    features = torch.ones(100, 40)
    drawn = [augmented(features, np.random.default_rng(seed), fewest=97) for seed in range(200)]
    assert min(map(len, drawn)) == 97
    assert max(map(len, drawn)) in range(110, 116)
    assert all(set(each.unique().tolist()) <= {0.0, 1.0} for each in drawn)
    blank_bands = [int((each == 0).all(0).sum()) for each in drawn]
    blank_frames = [int((each == 0).all(1).sum()) for each in drawn]
    assert (min(blank_bands), min(blank_frames)) == (0, 0)
    assert 8 < max(blank_bands) <= 16
    assert 10 < max(blank_frames) <= 22
    assert torch.equal(features, torch.ones(100, 40))


# -- the data ----------------------------------------------------------------------------------------------------------


def test_labels_rate_and_splits_come_from_the_manifest(tones):
    task = task_on(tones)
    assert task.spec.labels == (BLANK, "a", "b", "c", "d", "e")
    assert task.spec.sample_rate == 8000
    for name, items in task.corpus.splits.items():
        assert items
        assert all((split_of(item.text) or "train") == name for item in items)
    assert sum(map(len, task.corpus.splits.values())) == 60
    assert task.notes == ()


BAD = {
    "one tab only": ("abc", "expected audio path and text with one tab"),
    "missing audio": ("clips/none.wav\tabc", r"none\.wav: does not exist"),
    "empty transcript": ("clips/abc.wav\t", "the transcript is empty"),
    "wrong rate": ("fast.wav\tabc", r"fast\.wav: 16000 samples a second, expected 8000; convert it: `sox fast\.wav -r"),
    "absurd rate": ("slow.wav\tabc", r"slow\.wav: 100 samples a second, expected 4,000 to 384,000"),
    "unknown label": ("clips/abc.wav\tabz\u00e9", "the model has no label for 'z', '\u00e9'"),
    "nan": ("nan.wav\tabc", r"nan\.wav: holds a sample that is not a finite number"),
    "overflow": ("huge.wav\tabc", r"huge\.wav: its features are not finite"),
    "too short": (
        "clips/abc.wav\t" + "ab" * 10,
        "37 frames of 10 ms, 19 behind .* stride of 2.* 20 characters .* need 20",
    ),
    "repeats": ("clips/abc.wav\t" + "a" * 11, "are too few for the 11 characters of its transcript, which need 21"),
}


@pytest.fixture
def trained(tones, say):
    """A checkpoint's entry, and the bad files that the manifests below name."""
    folder = tones.parent
    say(folder / "fast.wav", "abc", rate=16000)
    say(folder / "slow.wav", "abc", rate=100)
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan] * 2000), 8000, subtype="FLOAT")
    soundfile.write(folder / "huge.wav", np.full(4000, 1e30), 8000, subtype="FLOAT")
    return task_on(tones).metadata


@pytest.mark.parametrize("kind", BAD)
def test_bad_data_is_refused_by_line_and_may_be_skipped(tones, trained, kind):
    line, reason = BAD[kind]
    path = tones.with_name("bad.tsv")
    path.write_text(line + "\n" + tones.read_text(), encoding="utf-8")
    with pytest.raises(InputRefused, match=rf"bad\.tsv:1: .*{reason}.*1 of 61 lines cannot be used: .*--skip-bad"):
        builtin_task(trained, DataOptions(path))
    task = builtin_task(trained, DataOptions(path, skip_bad=True))
    assert "is not the manifest that the model was trained on" in task.notes[0]
    assert task.notes[1].startswith(f"left out 1 of 61 lines: {path}:1: ")
    assert sum(map(len, task.corpus.splits.values())) == 60


def test_a_new_model_takes_the_rate_of_most_files(tones, say):
    say(tones.with_name("fast.wav"), "abc", rate=16000)
    path = tones.with_name("mixed.tsv")
    path.write_text("fast.wav\tabc\n" + tones.read_text())
    with pytest.raises(InputRefused, match=r"mixed\.tsv:1: .*fast\.wav: 16000 samples a second, expected 8000"):
        task_on(path)
    assert task_on(path, skip_bad=True).spec.sample_rate == 8000


def test_too_few_texts_leave_a_split_empty(tmp_path, say):
    say(tmp_path / "a.wav", "abc")
    (tmp_path / "m.tsv").write_text("a.wav\tabc\n" * 50)
    with pytest.raises(InputRefused, match=r"m\.tsv: no utterance falls into the split"):
        task_on(tmp_path / "m.tsv")
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputRefused, match="no utterance falls into the split 'train'"):
        task_on(tmp_path / "empty.tsv")


def test_features_that_do_not_fit_into_memory_are_computed_again(tones):
    audio = task_on(tones).corpus.splits["test"][0].audio
    roomy, full = Features(20), Features(20, room=0)
    assert roomy.read(audio)[0] is roomy.read(audio)[0]
    assert full.read(audio)[0] is not full.read(audio)[0]
    assert torch.equal(roomy.read(audio)[0], full.read(audio)[0])


@pytest.mark.parametrize(("text", "frames"), [("", 0), ("a", 1), ("ab", 2), ("aa", 3), ("aabba", 7)])
def test_ctc_needs_a_frame_a_character_and_one_between_two_alike(text, frames):
    assert frames_needed(text) == frames


# -- the checkpoint's entry --------------------------------------------------------------------------------------------


def test_the_entry_survives_json_and_a_weights_only_load(tones, tmp_path):
    task = task_on(tones)
    torch.save({"rnnprune": task.metadata}, tmp_path / "ckpt.pt")
    for entry in (json.loads(json.dumps(task.metadata)), torch.load(tmp_path / "ckpt.pt")["rnnprune"]):
        again = builtin_task(entry)
        assert (again.spec, again.metadata, again.notes) == (task.spec, task.metadata, ())
    assert task.metadata.keys() == {"task", "model", "data", "batches"}
    again = builtin_task(task_on(tones, batch_size=3).metadata)
    assert (again.batch_size, again.notes) == (3, ("--batch-size 3, as in training",))


def test_the_model_needs_no_data_and_the_task_asks_for_it(tones):
    task = task_on(tones)
    entry = task.metadata
    tones.rename(tones.with_name("moved.tsv"))
    assert builtin_spec(entry) == task.spec
    with pytest.raises(UsageError, match=r"trained on .*tones\.tsv, which is not here; pass --data FILE"):
        builtin_task(entry)
    assert builtin_task(entry, DataOptions(tones.with_name("moved.tsv"))).notes == ()


def test_what_does_not_belong_to_this_task_is_told(tones):
    entry = task_on(tones).metadata
    with pytest.raises(UsageError, match="--seq-len belongs to the task lm"):
        builtin_task(entry, DataOptions(length=5))
    with pytest.raises(UsageError, match="batch size 0"):
        builtin_task(entry, DataOptions(batch_size=0))
    with pytest.raises(UsageError, match="pass --data FILE"):
        CtcTask.from_manifest(SMALL, DataOptions())


def test_a_missing_jiwer_is_told_before_any_work(tones, monkeypatch):
    entry = task_on(tones).metadata
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(UsageError, match=r"error rates with jiwer: pip install 'rnnprune\[speech\]'"):
        builtin_task(entry)
    assert builtin_spec(entry) is not None
