"""Recognised stacks against what torch.nn says of its own modules; wrong shapes get an explanation, never a guess."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from rnnprune.architecture import (
    GATES,
    RecurrentName,
    RecurrentStack,
    find_stacks,
    parse_recurrent_name,
    roles_from_shapes,
)

Shapes = dict[str, tuple[int, ...]]


def shapes_of(module: nn.Module, prefix: str = "") -> Shapes:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def described(module: nn.RNNBase, prefix: str) -> RecurrentStack:
    """The stack as the module's own attributes tell it."""
    return RecurrentStack(
        prefix=prefix,
        kind=type(module).__name__.lower(),  # type: ignore[arg-type]
        input_size=module.input_size,
        hidden_size=module.hidden_size,
        proj_size=module.proj_size,
        num_layers=module.num_layers,
        bidirectional=bool(module.bidirectional),
        bias=bool(module.bias),
        is_cell=False,
    )


LAYERS = list(itertools.product([nn.RNN, nn.GRU, nn.LSTM], [1, 3], [False, True], [False, True], ["", "a.b.rnn"]))


@pytest.mark.parametrize(("layer", "num_layers", "bidirectional", "bias", "prefix"), LAYERS)
def test_every_layer_is_recognised(
    layer: type[nn.RNNBase], num_layers: int, bidirectional: bool, bias: bool, prefix: str
) -> None:
    module = layer(5, 4, num_layers=num_layers, bidirectional=bidirectional, bias=bias)  # type: ignore[arg-type]
    shapes = shapes_of(module, f"{prefix}." if prefix else "")
    found = find_stacks(shapes)
    assert found.problems == {}
    assert found.stacks == [described(module, prefix)]
    assert found.stacks[0].parameter_shapes() == shapes
    assert list(found.stacks[0].parameter_shapes()) == list(shapes)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_projections_are_recognised(num_layers: int, bidirectional: bool, bias: bool) -> None:
    module = nn.LSTM(5, 6, num_layers=num_layers, bidirectional=bidirectional, bias=bias, proj_size=2)
    found = find_stacks(shapes_of(module))
    assert found.stacks == [described(module, "")]
    assert found.stacks[0].parameter_shapes() == shapes_of(module)


@pytest.mark.parametrize("hidden", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_small_sizes_are_not_confused(layer: type[nn.RNNBase], hidden: int) -> None:
    """12 rows are an LSTM of 3, a GRU of 4 or an RNN of 12: the columns of weight_hh decide."""
    module = layer(1, hidden)  # type: ignore[arg-type]
    assert find_stacks(shapes_of(module)).stacks == [described(module, "")]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_are_recognised(cell: type[nn.RNNCellBase], bias: bool) -> None:
    module = cell(5, 4, bias=bias)  # type: ignore[call-arg, arg-type]
    found = find_stacks(shapes_of(module, "decoder."))
    (stack,) = found.stacks
    assert found.problems == {}
    assert (stack.prefix, stack.is_cell, stack.bias) == ("decoder", True, bias)
    assert (stack.kind, stack.input_size, stack.hidden_size) == (cell.__name__.removesuffix("Cell").lower(), 5, 4)
    assert stack.parameter_shapes() == shapes_of(module, "decoder.")


def test_several_stacks_in_one_file() -> None:
    model = nn.ModuleDict(
        {
            "encoder": nn.LSTM(8, 4, bidirectional=True),
            "decoders": nn.ModuleList([nn.GRUCell(8, 4), nn.GRUCell(4, 4)]),
            "tail": nn.Sequential(nn.RNN(4, 3), nn.Linear(3, 2)),
        }
    )
    found = find_stacks(shapes_of(model))
    assert found.problems == {}
    assert [(stack.prefix, stack.kind) for stack in found.stacks] == [
        ("encoder", "lstm"),
        ("decoders.0", "gru"),
        ("decoders.1", "gru"),
        ("tail.0", "rnn"),
    ]


def test_a_cell_and_a_layer_under_one_prefix_are_two_stacks() -> None:
    found = find_stacks(shapes_of(nn.LSTM(3, 4)) | shapes_of(nn.LSTMCell(3, 4)))
    assert sorted(stack.is_cell for stack in found.stacks) == [False, True]


def test_the_gates_stand_in_torchs_order() -> None:
    """Rows of one gate decide one thing: a hand-set forget gate forgets, a hand-set update gate keeps."""
    assert GATES == {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}
    lstm = nn.LSTMCell(1, 1)
    gru = nn.GRUCell(1, 1)
    with torch.no_grad():
        for cell, gate in ((lstm, GATES["lstm"].index("f")), (gru, GATES["gru"].index("z"))):
            for parameter in cell.parameters():
                parameter.zero_()
            cell.bias_ih[gate] = 50.0
        _, memory = lstm(torch.zeros(1, 1), (torch.zeros(1, 1), torch.full((1, 1), 0.7)))
        hidden = gru(torch.zeros(1, 1), torch.full((1, 1), 0.7))
    assert memory.item() == pytest.approx(0.7)
    assert hidden.item() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("weight_hh_l0", RecurrentName("", "weight_hh", 0, False)),
        ("a.b.weight_ih_l12_reverse", RecurrentName("a.b", "weight_ih", 12, True)),
        ("cell.bias_hh", RecurrentName("cell", "bias_hh", None, False)),
        ("rnn.weight_hr_l0", RecurrentName("rnn", "weight_hr", 0, False)),
        ("weight_hh_reverse", None),
        ("weight_hh_l", None),
        ("weight_hh_l0_raw", None),
        ("my_weight_hh_l0", None),
        ("weight", None),
        ("", None),
        ("weight_hh_l" + "9" * 5000, None),
    ],
)
def test_names_are_parsed(name: str, parsed: RecurrentName | None) -> None:
    assert parse_recurrent_name(name) == parsed


def changed(**changes: Any) -> Shapes:
    shapes = shapes_of(nn.LSTM(5, 4, num_layers=2))
    for name, shape in changes.items():
        if shape is None:
            del shapes[name]
        else:
            shapes[name] = shape
    return shapes


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (changed(weight_hh_l0=None), "weight_hh_l0 is missing"),
        (changed(weight_ih_l0=None), "weight_ih_l0 is missing"),
        (changed(weight_hh_l0=(16, 4, 1)), r"weight_hh_l0 has shape [16, 4, 1], not two dimensions"),
        (changed(weight_hh_l0=(20, 4)), "weight_hh_l0 has 20 rows for 4 hidden units; expected 4 (LSTM), 3 (GRU) or 1"),
        (changed(weight_hh_l0=(16, 0)), "has 16 rows for 0 hidden units"),
        (changed(weight_hh_l0=(0, 4)), "has 0 rows for 4 hidden units"),
        (changed(weight_ih_l0=(12, 5)), "weight_ih_l0: expected [16, 5], found [12, 5] (LSTM 5 -> 4, 2 layers; is it"),
        (changed(weight_ih_l1=(16, 5)), "weight_ih_l1: expected [16, 4], found [16, 5]"),
        (changed(bias_hh_l1=None), "bias_hh_l1 of shape [16] is missing"),
        (changed(bias_ih_l0=(12,)), "bias_ih_l0: expected [16], found [12]"),
        (changed(weight_hh_l7=(16, 4)), "weight_ih_l2 of shape [16, 4] is missing"),
        (changed(weight_hh_l9999=(16, 4)), "a layer number as high as 9999, but layers are missing"),
        (changed(weight_hh_l0_reverse=(16, 4)), "weight_ih_l0_reverse of shape [16, 5] is missing"),
        (changed(weight_hr_l1=(2, 4)), "weight_hr_l1 does not belong to LSTM 5 -> 4, 2 layers"),
        (changed(weight_hr_l0=(2, 4)), "expected"),
    ],
)
def test_what_fits_no_stack_is_explained(shapes: Shapes, text: str) -> None:
    found = find_stacks(shapes)
    assert found.stacks == []
    assert set(found.problems) == set(shapes)
    assert all(text in problem and problem.startswith("no recurrent stack: ") for problem in found.problems.values())


def test_a_problem_in_one_stack_leaves_the_others() -> None:
    found = find_stacks(shapes_of(nn.GRU(3, 4), "good.") | {"bad.weight_hh_l0": (7, 4), "bad.weight_ih_l0": (7, 3)})
    assert [stack.prefix for stack in found.stacks] == ["good"]
    assert set(found.problems) == {"bad.weight_hh_l0", "bad.weight_ih_l0"}


def test_nothing_recurrent_is_no_problem() -> None:
    assert find_stacks({}) == ([], {})
    assert find_stacks(shapes_of(nn.Linear(3, 4))) == ([], {})


@pytest.mark.parametrize(
    ("module", "label"),
    [
        (nn.LSTM(512, 1024, num_layers=2, bidirectional=True), "LSTM 512 -> 1024, 2 layers, bidirectional"),
        (nn.LSTM(8, 6, proj_size=2), "LSTM 8 -> 6, projected to 2"),
        (nn.GRUCell(3, 4), "GRUCell 3 -> 4"),
        (nn.RNN(3, 4), "RNN 3 -> 4"),
    ],
)
def test_the_label_is_what_a_person_would_say(module: nn.Module, label: str) -> None:
    assert find_stacks(shapes_of(module)).stacks[0].label == label


def test_roles_of_a_whole_model() -> None:
    model = nn.ModuleDict(
        {
            "token_embedding": nn.Embedding(11, 5),
            "conv": nn.Conv1d(5, 5, 3),
            "rnn": nn.LSTM(5, 4, proj_size=3),
            "norm": nn.LayerNorm(3),
            "fc": nn.Linear(3, 2),
            "bare": nn.Linear(3, 2, bias=False),
        }
    )
    assert roles_from_shapes(shapes_of(model)) == {
        "token_embedding.weight": "embedding",
        "conv.weight": "convolution",
        "conv.bias": "bias",
        "rnn.weight_ih_l0": "input",
        "rnn.weight_hh_l0": "recurrent",
        "rnn.bias_ih_l0": "bias",
        "rnn.bias_hh_l0": "bias",
        "rnn.weight_hr_l0": "projection",
        "norm.weight": "norm",
        "norm.bias": "bias",
        "fc.weight": "linear",
        "fc.bias": "bias",
        "bare.weight": "unknown",
    }


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("emb.weight", "embedding"),
        ("dec_emb", "embedding"),
        ("char_emb_2.weight", "embedding"),
        ("embed_tokens.weight", "embedding"),
        ("ensemble.weight", "unknown"),
        ("members.weight", "unknown"),
    ],
)
def test_an_embedding_is_told_by_its_name(name: str, role: str) -> None:
    assert roles_from_shapes({name: (7, 3)}) == {name: role}


def test_a_linear_layer_of_an_embedding_or_an_ensemble_is_linear() -> None:
    shapes = shapes_of(nn.Linear(3, 2), "embedder.fc.") | shapes_of(nn.Linear(3, 2), "ensemble.fc.")
    assert [role for role in roles_from_shapes(shapes).values() if role != "bias"] == ["linear", "linear"]


def test_a_broken_stack_has_no_prunable_role() -> None:
    roles = roles_from_shapes({"rnn.weight_hh_l0": (7, 4), "rnn.weight_ih_l0": (7, 3), "rnn.bias_ih_l0": (7,)})
    assert roles == {"rnn.weight_hh_l0": "unknown", "rnn.weight_ih_l0": "unknown", "rnn.bias_ih_l0": "bias"}
