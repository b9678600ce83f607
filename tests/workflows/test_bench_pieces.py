"""What `bench` multiplies: the grammar of --shapes, random patterns, and the pieces of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.workflows.bench_pieces import (
    PAPER,
    Piece,
    Shape,
    detect_block,
    parse_shapes,
    pieces_of,
    random_piece,
    shape_of,
)
from rnnprune.workflows.subject import open_subject


def test_matrices_layers_and_the_preset_stand_in_one_list() -> None:
    shapes = parse_shapes("7x96, lstm:512x1024,gru:5x6,rnn:8x8")
    assert shapes == (Shape(None, 7, 96), Shape("lstm", 512, 1024), Shape("gru", 5, 6), Shape("rnn", 8, 8))
    assert [shape.label for shape in shapes] == ["7x96", "512->1024", "5->6", "8->8"]
    assert tuple(shape.label for shape in parse_shapes("paper")) == PAPER
    assert len(parse_shapes("paper,1760x1760,8x8")) == len(PAPER) + 1


@pytest.mark.parametrize("text", ["", "8", "0x8", "8x0", "-1x8", "8x8x8", "lstm:8", "bert:8x8", "8x8,", "08x8"])
def test_anything_else_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected ROWSxCOLS \(1760x1760\), KIND:INPUTxHIDDEN .* or paper"):
        parse_shapes(text)


@pytest.mark.parametrize("text", ["100000x100000", "lstm:8x999999999", "lstm:999999999x8"])
def test_a_matrix_beyond_the_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="more than the limit of"):
        parse_shapes(text)


@pytest.mark.parametrize("block", [(1, 1), (16, 1), (8, 4), (8, 1), (4, 4)])
@pytest.mark.parametrize("shape", ["96x64", "97x65", "lstm:24x40"])
def test_random_patterns_have_their_sparsity_their_blocks_and_their_seed(shape: str, block: tuple[int, int]) -> None:
    (parsed,) = parse_shapes(shape)
    piece, again, other = (random_piece(parsed, 0.8, block, seed) for seed in (0, 0, 1))
    assert piece.sparsity == pytest.approx(0.8, abs=0.07)
    assert piece.block == block
    for name, matrix in piece.matrices.items():
        assert detect_block(matrix) == block
        assert torch.equal(matrix, again.tensors[name])
        assert not torch.equal(matrix, other.tensors[name])
    assert shape_of(piece) == parsed


def test_a_dense_or_empty_matrix_has_no_blocks() -> None:
    assert detect_block(torch.ones(32, 32)) == (1, 1)
    assert detect_block(torch.zeros(32, 32)) == (1, 1)


def test_every_distinct_matrix_and_layer_of_a_model_is_a_piece_and_says_which(tmp_path: Path) -> None:
    model = nn.ModuleDict(
        {
            "rnn": nn.LSTM(6, 10, num_layers=3),
            "twin": nn.LSTM(6, 10),
            "projected": nn.LSTM(6, 10, proj_size=4),
            "cell": nn.GRUCell(5, 7),
            "head": nn.Linear(10, 5),
            "embedding": nn.Embedding(9, 6),
        }
    )
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = [(piece.op, piece.shape, piece.name, len(piece.alike)) for piece in pieces_of_file(tmp_path)]
    assert found == [
        ("matvec", "40x6", "rnn.weight_ih_l0", 2),
        ("matvec", "40x10", "rnn.weight_hh_l0", 5),
        ("lstm", "6->10", "rnn layer 0", 1),
        ("lstm", "10->10", "rnn layer 1", 1),
        ("matvec", "40x4", "projected.weight_hh_l0", 0),
        ("matvec", "4x10", "projected.weight_hr_l0", 0),
        ("lstm", "6->10", "projected", 0),
        ("matvec", "21x5", "cell.weight_ih", 0),
        ("matvec", "21x7", "cell.weight_hh", 0),
        ("gru", "5->7", "cell", 0),
        ("matvec", "5x10", "head.weight", 0),
    ]


def test_directions_are_told_apart_and_what_differs_in_zeros_is_timed_on_its_own(tmp_path: Path) -> None:
    model = nn.GRU(5, 5, bidirectional=True).requires_grad_(False)
    for name in ("weight_ih_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"):
        getattr(model, name)[:, :4] = 0.0
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = {(piece.name, piece.alike, round(piece.sparsity, 2)) for piece in pieces_of_file(tmp_path)}
    assert found == {
        ("weight_ih_l0", ("weight_ih_l0_reverse", "weight_hh_l0_reverse"), 0.8),
        ("weight_hh_l0", (), 0.0),
        ("layer 0, forward direction", (), 0.4),
        ("layer 0, backward direction", (), 0.8),
    }


def pieces_of_file(folder: Path) -> list[Piece]:
    return list(pieces_of(open_subject(folder / "model.pt")))
