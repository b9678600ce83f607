"""`train seq2seq` and everything after it, on words that are to be spelled backwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnprune as library

RECURRENT = {f"{layer}.weight_{side}_l0" for layer in ("encoder", "decoder") for side in ("ih", "hh")}
PRUNED = RECURRENT | {"encoder.weight_ih_l0_reverse", "encoder.weight_hh_l0_reverse", "combine.weight", "output.weight"}


@pytest.fixture
def backwards(folder: Path) -> str:
    """600 words of two to four letters, backwards beside them."""
    random = np.random.default_rng(0)
    drawn = ["".join(random.choice(list("abcd"), random.integers(2, 5))) for _ in range(600)]
    (folder / "backwards.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in drawn))
    return "backwards.tsv"


@pytest.mark.parametrize("cell", [pytest.param("lstm", marks=pytest.mark.slow), "gru"])
def test_from_pairs_to_a_sparse_file(rnnprune: Callable[..., Any], folder: Path, backwards: str, cell: str) -> None:
    sizes = ("--cell", cell, "--hidden", "16", "--embedding", "8", "--attention", "additive", "--steps", "15")
    trained = rnnprune("train", "seq2seq", "--data", backwards, "--out", "ckpt.pt", *sizes, "--json").json
    told = rnnprune("finetune", "ckpt.pt", "--steps", "20", "--batch-size", "32", "--json").json
    assert set(told["sparsity"]["per_tensor"]) == PRUNED | {"attention.query.weight", "attention.key.weight"}
    assert (told["metric"]["name"], told["metric"]["goal"]) == ("CER", "min")
    assert told["metric"]["dense"] == trained["metric"]["value"]
    exported = rnnprune("export", "--json").json["file"]
    sparse = rnnprune("evaluate", exported, "--json").json
    assert sparse["value"] == pytest.approx(told["metric"]["sparse"], abs=0.5)  # a tie may fall the other way
    model = library.load(folder / exported)
    assert len(model.translate(["abc", "da"])) == 2


@pytest.mark.slow
def test_spelling_backwards_is_learned_and_kept(rnnprune: Callable[..., Any], backwards: str) -> None:
    sizes = ("--hidden", "48", "--embedding", "16", "--steps", "300", "--lr", "0.005", "--beam", "2")
    dense = rnnprune("train", "seq2seq", "--data", backwards, "--out", "ckpt.pt", *sizes, "--json").json
    assert dense["metric"]["value"] < 5
    recipe = ("--target", "0.7", "--steps", "300", "--lr", "0.005")
    told = rnnprune("finetune", "ckpt.pt", *recipe, "--json").json
    assert told["metric"]["sparse"] < 10
    exported = rnnprune("export", "--json").json["file"]
    evaluated = rnnprune("evaluate", exported, "--engine", "native", "--json").json
    assert evaluated["engine"] == "native"
    assert evaluated["value"] == pytest.approx(told["metric"]["sparse"], abs=0.5)
    assert library.load(exported).translate(["abcd", "dca"]) == ["dcba", "acd"]


def test_bad_lines_end_the_command_or_are_listed(rnnprune: Callable[..., Any], folder: Path, backwards: str) -> None:
    with (folder / backwards).open("a") as file:
        file.write("no tab\n")
    train = ("train", "seq2seq", "--data", backwards, "--out", "ckpt.pt", "--hidden", "8", "--steps", "2")
    told = rnnprune(*train)
    assert told.code == 3
    assert "backwards.tsv:601: expected source, tab, target; found 0 tabs in 'no tab'" in told.err
    told = rnnprune(*train, "--skip-bad")
    assert told.code == 0
    assert "1 of 601 lines left out" in told.err
    told = rnnprune("finetune", "ckpt.pt", "--steps", "20")
    assert told.code == 0, "what the training left out stays left out"
    assert "1 of 601 lines left out" in told.err


def test_what_the_levels_decide(rnnprune: Callable[..., Any], folder: Path) -> None:
    pairs = (f"{'ab' * (i % 7)}x{i}\tA B{i % 5}\n" for i in range(200))
    (folder / "p.tsv").write_text("".join(pairs))
    sizes = ("--data", "p.tsv", "--out", "ckpt.pt", "--hidden", "8", "--steps", "2", "--overwrite")
    for flags, metric in (((), "CER"), (("--target-level", "word", "--metric", "WER"), "WER")):
        assert rnnprune("train", "seq2seq", *sizes, *flags, "--json").json["metric"]["name"] == metric
    assert json.loads(rnnprune("evaluate", "ckpt.pt", "--json").out)["metric"] == "WER"
