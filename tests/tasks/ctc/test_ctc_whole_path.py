"""The whole path in miniature, as a user types it: train, finetune, export, evaluate on the sparse file, load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import rnnprune
from rnnprune.cli.app import app


def call(*arguments: str) -> dict:
    told = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert told.exit_code == 0, told.stderr
    return json.loads(told.stdout)


@pytest.mark.slow  # 20 s: a recogniser that really learns its tones
def test_from_recordings_to_a_sparse_recogniser(tones, tmp_path, monkeypatch):
    manifest, steps = tones.name, ("--steps", "150", "--lr", "0.01")
    monkeypatch.chdir(tmp_path)
    sizes = ("--cell", "gru", "--hidden", "48", "--layers", "1", "--mels", "16", "--channels", "4")
    trained = call("train", "ctc", "--data", manifest, "--out", "ckpt.pt", *sizes, *steps)
    assert trained["metric"]["name"] == "CER"
    assert trained["metric"]["value"] < 20

    tuned = call("finetune", "ckpt.pt", "--target", "0.9", *steps, "--scope", "model")
    assert tuned["sparsity"]["achieved"] == pytest.approx(0.9, abs=1e-4)
    layer = {f"layers.0.{way}.weight_{side}_l0" for way in ("forwards", "backwards") for side in ("ih", "hh")}
    assert set(tuned["sparsity"]["per_tensor"]) == {*layer, "output.weight"}
    assert tuned["metric"]["dense"] == trained["metric"]["value"]
    assert tuned["metric"]["sparse"] < 40

    sparse_file = call("export", "ckpt-s90", "--format", "csr")["file"]
    scored = call("evaluate", sparse_file)
    assert scored["value"] == pytest.approx(tuned["metric"]["sparse"], abs=1e-9)
    assert set(scored["figures"]) == {"CER", "WER", "CER_beam8", "WER_beam8"}
    dense = call("evaluate", "ckpt-s90")
    assert dense["engine"] == "torch-dense-fp32"

    heard = rnnprune.load(sparse_file).transcribe(sorted((tmp_path / "clips").iterdir()))
    assert sum(text in path.name for text, path in zip(heard, sorted((tmp_path / "clips").iterdir()), strict=True)) > 40
    for clip in (tmp_path / "clips").iterdir():
        clip.unlink()
    tones.unlink()
    sparse, again = rnnprune.load(sparse_file), rnnprune.load("ckpt-s90", engine="torch-dense-fp32")
    features, lengths = torch.randn(2, 30, 16), torch.tensor([30, 11])
    with torch.no_grad():
        (found, left), (expected, _) = sparse(features, lengths), again(features, lengths)
    for row, other, length in zip(found, expected, left, strict=True):
        torch.testing.assert_close(row[:length], other[:length], rtol=0, atol=1e-5)


def test_bad_lines_are_told_on_the_command_line_with_exit_code_3(tones, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tones.tsv").write_text("clips/none.wav\tabc\n" + tones.read_text())
    arguments = ["train", "ctc", "--data", "tones.tsv", "--out", "ckpt.pt", "--steps", "1", "--hidden", "4"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 3
    assert "tones.tsv:1: clips/none.wav: does not exist; 1 of 61 lines cannot be used" in told.stderr
    told = CliRunner().invoke(app, [*arguments, "--skip-bad"])
    assert told.exit_code == 0
    assert "left out 1 of 61 lines: tones.tsv:1:" in told.stderr
