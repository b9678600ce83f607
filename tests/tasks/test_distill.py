"""Distillation: bare state dicts rebuilt as torch has them, the figure against numpy, inputs that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rnnprune.architecture import find_stacks
from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.distill.inputs import read_inputs
from rnnprune.tasks.distill.stacks import build_stacks, run_stack
from rnnprune.tasks.distill.task import DistillTask, Student, model_student, stacks_student


class Tagger(nn.Module):
    """Embedding, two layers, a head: what a user would have."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 8, 2, batch_first=True, dropout=0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        hidden, state = self.rnn(self.embedding(tokens))
        return self.head(hidden), state


LAYERS: list[tuple[str, nn.Module]] = [
    ("", nn.LSTM(5, 7, batch_first=True)),
    ("", nn.GRU(5, 7, 2, batch_first=True, bidirectional=True)),
    ("net.encoder", nn.RNN(5, 7, 3, batch_first=True, bias=False)),
    ("a", nn.LSTM(5, 8, 2, batch_first=True, proj_size=3, bidirectional=True)),
    ("cell", nn.LSTMCell(5, 7)),
    ("", nn.GRUCell(5, 7)),
    ("x.0", nn.RNNCell(5, 7, bias=False)),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("prefix", "layer"), LAYERS, ids=lambda value: str(value)[:30])
def test_a_bare_state_dict_becomes_a_module_that_computes_the_same(prefix: str, layer: nn.Module) -> None:
    dot = f"{prefix}." if prefix else ""
    tensors = {dot + name: tensor for name, tensor in layer.state_dict().items()} | {"head.weight": torch.randn(3, 7)}
    stacks = find_stacks({name: tuple(tensor.shape) for name, tensor in tensors.items()}).stacks
    module = build_stacks(tensors, stacks)
    module.load_state_dict(tensors, strict=True)
    x = torch.randn(2, 4, 5)
    found = run_stack(module.get_submodule(prefix), x, is_cell=stacks[0].is_cell)
    if isinstance(layer, nn.RNNCellBase):
        state = None
        for step in range(4):
            state = layer(x[:, step], state)
            h = state[0] if isinstance(state, tuple) else state
            torch.testing.assert_close(found[:, step], h)
    else:
        torch.testing.assert_close(found, layer(x)[0])


def test_a_name_that_is_tensor_and_prefix_at_once_is_refused() -> None:
    tensors = {f"a.{name}": tensor for name, tensor in nn.GRU(2, 3).state_dict().items()} | {"a": torch.ones(2)}
    stacks = find_stacks({name: tuple(tensor.shape) for name, tensor in tensors.items()}).stacks
    with pytest.raises(InputRefused, match="cannot belong to one module"):
        build_stacks(tensors, stacks)


def test_the_figure_is_the_root_mean_square_distance_in_units_of_the_deviation() -> None:
    layer = nn.GRU(4, 6, batch_first=True)
    x = torch.randn(40, 5, 4)
    task = DistillTask(Student(layer, {"": x}, lambda model, inputs: [model(inputs[""])[0]]), layer, batch_size=7)
    other = nn.GRU(4, 6, batch_first=True)
    with torch.no_grad():
        teacher, student = layer(x)[0].double().numpy(), other(x)[0].double().numpy()
    for split, part in (("validation", slice(36, 38)), ("test", slice(38, 40))):
        expected = 100 * np.sqrt(np.mean((student[part] - teacher[part]) ** 2) / np.var(teacher[:36]))
        assert task.evaluate(other, split) == pytest.approx({"NRMSE": expected}, rel=1e-5)
    assert task.evaluate(layer, "test") == {"NRMSE": 0.0}


def test_only_recurrent_and_linear_layers_learn_and_dropout_is_off() -> None:
    teacher = Tagger()
    task = DistillTask(model_student(Tagger(), {"tokens": torch.randint(11, (20, 9))}), teacher)
    model = task.build_model()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"embedding.weight"}
    model.load_state_dict(teacher.state_dict())
    (batch,) = task.train_batches(epoch=0, seed=0)
    model.train()
    assert task.loss(model, batch).item() < 1e-12


UNFIT = [
    ({"a": torch.ones(9, 4, 5), "b": torch.ones(9, 4, 5)}, "expected arrays named 'rnn' of [N, T, 5]; found 'a', 'b'"),
    ({"": torch.ones(9, 4, 6)}, "float32 [9, 4, 6]; its layer takes floats [N, T, 5] or one recording [T, 5]"),
    ({"": torch.ones(9, 4, 5).long()}, "int64 [9, 4, 5]; its layer takes floats"),
    ({"": torch.ones(250, 5)}, "250 steps are fewer than 3 windows of --seq-len 100"),
]


@pytest.mark.parametrize(("arrays", "message"), UNFIT)
def test_inputs_that_do_not_fit_the_stacks_are_named(arrays: dict[str, torch.Tensor], message: str) -> None:
    tensors = {f"rnn.{name}": tensor for name, tensor in nn.LSTM(5, 7).state_dict().items()}
    stacks = find_stacks({name: tuple(tensor.shape) for name, tensor in tensors.items()}).stacks
    with pytest.raises(UsageError) as told:
        stacks_student(build_stacks(tensors, stacks), stacks, arrays)
    assert message in str(told.value)


def test_a_recording_is_cut_into_windows() -> None:
    layer = nn.LSTM(5, 7)
    stacks = find_stacks({name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}).stacks
    recording = torch.arange(35.0).view(7, 5)
    student = stacks_student(layer, stacks, {"": recording}, length=2)
    assert torch.equal(student.inputs[""], recording[:6].view(3, 2, 5))


def test_a_model_that_cannot_be_run_on_the_inputs_says_so() -> None:
    with pytest.raises(UsageError, match=r"--inputs: the model cannot be run on float32 \[7, 4, 5\]: "):
        DistillTask(model_student(nn.LSTM(6, 7), {"": torch.ones(9, 4, 5)}), nn.LSTM(6, 7))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int16, np.uint8])
def test_every_kind_of_file_gives_the_same_arrays(tmp_path: Path, dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", x=array)
    save_file({"x": torch.from_numpy(array)}, tmp_path / "a.safetensors")
    for name, key in (("a.npy", ""), ("a.npz", "x"), ("a.safetensors", "x")):
        found = read_inputs(tmp_path / name)[key]
        assert found.dtype == (torch.float32 if np.issubdtype(dtype, np.floating) else torch.int64)
        assert found.tolist() == array.tolist()


def test_files_that_are_no_inputs_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((4, 2), np.nan))
    np.save(tmp_path / "flat.npy", np.ones(4))
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    messages = {
        "nan.npy": "holds NaN or infinity",
        "flat.npy": r"shape \[4\]",
        "objects.npy": "cannot be read",
        "text.npy": "dtype <U1, expected floats or whole numbers",
        "cut.safetensors": "cannot be read",
        "cut.npz": "cannot be read",
    }
    for name, message in messages.items():
        with pytest.raises(InputRefused, match=message):
            read_inputs(tmp_path / name)
    (tmp_path / "x.csv").write_text("1,2")
    for name in ("x.csv", "missing.npy"):
        with pytest.raises(UsageError, match=name):
            read_inputs(tmp_path / name)
