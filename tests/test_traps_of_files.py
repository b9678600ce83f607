"""Traps 9 to 13 and 15: ties, lost masks, copies, bytes, speed, names. The others stand in test_traps.py."""

import copy
import io
import pickle
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rnnprune.architecture import find_stacks, roles_from_shapes
from rnnprune.errors import UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.sparse import csr_or_dense, densify, read_sparse, write_sparse
from rnnprune.kernels import reference, torch_csr
from rnnprune.kernels.csr import Csr, csr_from_dense
from rnnprune.kernels.reference import Layer, run_layer
from rnnprune.pruning.options import Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Gradual, Hard
from rnnprune.workflows import bench as bench_workflow
from rnnprune.workflows import bench_measure
from rnnprune.workflows.run_output import measure, state_of
from rnnprune.workflows.subject import Subject, load_model
from rnnprune.workflows.timing import Timing as Measured
from tests.trapped import WEIGHTS, X, backward, pruned_lstm, sparsity, steps


class Tied(nn.Module):
    def __init__(self, shared: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        if shared:
            self.second.weight = self.first.weight
        else:  # one storage, two parameters
            self.second.weight = nn.Parameter(self.first.weight.detach())

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.second(self.first(x).tanh()),)


@pytest.mark.parametrize("shared", [True, False], ids=["one parameter", "one storage"])
def test_trap_09_tied_weights_have_one_mask_and_are_exported_once(tmp_path: Path, shared: bool) -> None:
    model = Tied(shared)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner = Pruner(model, optimizer, Cubic(1, 8, 2))
    for _ in range(20):
        optimizer.zero_grad()
        model(X[..., [0, 1, 2, 3, 4, 5, 0, 1]])[0].square().mean().backward()
        optimizer.step()
        pruner.step()
    assert list(pruner.masks) == ["first.weight"]
    assert [choice.pruned for choice in pruner.choices if choice.name.endswith("weight")] == [True, True]
    assert int(model.second.weight.count_nonzero()) == 64 - round(57.6)

    tensors, aliases = state_of(model)
    assert aliases == {"second.weight": "first.weight"}
    assert measure(tensors, aliases, pruner.choices).per_tensor == {"first.weight": 58 / 64}
    path = tmp_path / "tied.csr.safetensors"
    write_sparse(path, {name: csr_or_dense(tensor) for name, tensor in tensors.items()}, aliases, {})
    back = densify(read_sparse(path))
    assert back["second.weight"] is back["first.weight"]
    assert torch.equal(back["second.weight"], model.second.weight)
    with pytest.raises(RuntimeError, match="share memory"):
        safetensors.torch.save(model.state_dict())


def test_trap_09_a_weight_tied_to_one_that_is_left_out_is_left_out_and_says_so() -> None:
    model = Tied()
    pair = nn.ModuleDict({"tied": model, "rnn": nn.LSTM(6, 8)})
    pruner = Pruner(pair, torch.optim.Adam(pair.parameters()), Hard(1), selection=Selection(exclude=("tied.second.*",)))
    reasons = {choice.name: choice.reason for choice in pruner.choices}
    assert reasons["tied.first.weight"] == "tied to tied.second.weight (excluded by 'tied.second.*')"
    assert list(pruner.masks) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]


def test_trap_09_views_of_one_storage_that_do_not_match_are_left_out_and_each_names_the_other() -> None:
    def left_out(second: Tensor) -> dict[str, str]:
        tied = Tied(False)
        tied.second.weight = nn.Parameter(second)
        tied.first.weight = nn.Parameter(whole)
        model = nn.ModuleDict({"tied": tied, "head": nn.Linear(8, 8)})
        choices = Pruner(model, torch.optim.Adam(model.parameters()), Hard(1)).choices
        return {choice.name: choice.reason for choice in choices if choice.role == "linear" and not choice.pruned}

    whole, layout = torch.randn(8, 8), "(one storage, in another layout)"
    both = {
        "tied.first.weight": f"tied to tied.second.weight {layout}",
        "tied.second.weight": f"tied to tied.first.weight {layout}",
    }
    assert left_out(whole.t()) == both
    assert left_out(whole[2:]) == both
    buffer = torch.randn(16, 8)  # as cuDNN keeps the weights of a layer: beside one another
    whole = buffer[:8]
    assert left_out(buffer[8:]) == {}


def test_trap_10_a_resumed_run_keeps_its_masks_and_ends_in_the_same_bits() -> None:
    whole, _, _ = pruned_lstm(Gradual(1, 8, 20, 2), 40)
    torch.manual_seed(0)
    model, optimizer, pruner = pruned_lstm(Gradual(1, 8, 20, 2), 13)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    resumed = nn.LSTM(6, 8)
    optimizer = torch.optim.Adam(resumed.parameters(), lr=0.01)
    pruner = Pruner(resumed, optimizer, Gradual(1, 8, 20, 2))
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    pruner.load_state_dict(saved["pruner"])
    assert pruner.step_count == 13
    steps(resumed, optimizer, pruner, 27)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_trap_10_masks_are_restored_strictly_and_hold_for_dense_weights_too() -> None:
    _, _, pruner = pruned_lstm()
    dense = nn.LSTM(6, 8)
    resumed = Pruner(dense, torch.optim.Adam(dense.parameters()), Cubic(1, 8, 2))
    resumed.load_state_dict(pruner.state_dict())
    assert sparsity(dense) == pruner.sparsity > 0.89
    for other in (nn.LSTM(6, 9), nn.GRU(6, 8), nn.LSTM(6, 8, num_layers=2)):
        with pytest.raises(UsageError, match=r"belong to another model or selection; they differ in .*weight_"):
            Pruner(other, torch.optim.Adam(other.parameters()), Hard(1)).load_state_dict(pruner.state_dict())


def test_trap_10_a_checkpoint_with_a_tensor_missing_is_refused(tmp_path: Path) -> None:
    class Builds:
        metric, goal = "x", "min"
        train_batches = loss = evaluate = print

        def build_model(self) -> nn.Module:
            return nn.LSTM(6, 8)

    state = nn.LSTM(6, 8).state_dict()
    del state["weight_hh_l0"]
    torch.save(state, tmp_path / "gap.pt")
    with pytest.raises(UsageError, match="does not fit the task's model: missing weight_hh_l0"):
        load_model(Builds(), Subject(tmp_path / "gap.pt", read_checkpoint(tmp_path / "gap.pt")))  # type: ignore[arg-type]


def test_trap_11_a_model_that_is_being_pruned_copies_pickles_saves_and_quantizes() -> None:
    model, optimizer, _ = pruned_lstm()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    copy.deepcopy(optimizer)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies.append(torch.load(file, weights_only=False))
    for twin in copies:
        assert torch.equal(twin(X)[0], model(X)[0])
        backward(twin)
        assert twin.weight_hh_l0.grad[twin.weight_hh_l0 == 0].any()  # the copy is free: no hook came along
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a successor
        int8 = torch.ao.quantization.quantize_dynamic(nn.Sequential(model), {nn.LSTM})
    torch.testing.assert_close(int8(X)[0], model(X)[0], atol=0.05, rtol=0)


def test_trap_12_a_matrix_stays_dense_where_csr_is_bigger() -> None:
    half = torch.randn(64, 64) * (torch.arange(64) % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR tensors are in beta
        naive = half.to_sparse_csr()
    parts = (naive.crow_indices(), naive.col_indices(), naive.values())
    assert sum(part.nbytes for part in parts) > half.nbytes  # int64 indices: larger than dense
    ours = csr_or_dense(half)
    assert isinstance(ours, Csr)
    assert ours.nbytes == 65 * 4 + 2048 * (2 + 4) < half.nbytes
    full = torch.randn(64, 64) * (torch.arange(64) % 10 > 0)
    assert csr_or_dense(full) is full


def test_trap_12_zeros_shrink_in_our_file_and_not_in_torchs(tmp_path: Path) -> None:
    weight = torch.randn(200, 200) * (torch.arange(200) % 10 == 0)
    torch.save({"w": weight}, tmp_path / "w.pt")
    write_sparse(tmp_path / "w.csr.safetensors", {"w": csr_or_dense(weight)}, {}, {})
    assert (tmp_path / "w.pt").stat().st_size > weight.nbytes
    assert (tmp_path / "w.csr.safetensors").stat().st_size < 0.2 * weight.nbytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trap_12_half_values_are_multiplied_although_torch_cannot(dtype: torch.dtype) -> None:
    weight, x = torch.randn(16, 16).to(dtype) * (torch.arange(16) % 2), torch.randn(16, 3)
    torch.testing.assert_close(torch_csr.pack(csr_from_dense(weight))(x), weight.float() @ x)


def test_trap_13_a_losing_engine_is_shown_with_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(nn.LSTM(4, 8).state_dict(), tmp_path / "dense.pt")
    slow = {"torch-dense-fp32": 10.0, "torch-csr": 40.0, "scipy-csr": 5.0}
    times = slow | {bench_measure.AGAIN: 10.0}
    monkeypatch.setattr(
        bench_measure,
        "interleave",
        lambda calls, rounds: {name: Measured(times[name], times[name], times[name], 0.0) for name in calls},  # noqa: ARG005
    )
    result = bench_workflow.bench(
        bench_workflow.BenchRequest(tmp_path / "dense.pt", steps=2, engines=("torch-csr", "scipy-csr"))
    )
    shown = {(row.case.op, row.engine): row.vs_dense for row in result.rows}
    assert shown == {(op, engine): 10.0 / us for op in ("matvec", "lstm") for engine, us in slow.items()}


@pytest.mark.parametrize("bias", [True, False])
def test_trap_15_backward_and_projected_weights_are_found_and_every_tensor_has_a_reason(bias: bool) -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(6, 8, num_layers=2, bidirectional=True, proj_size=5, bias=bias)})
    pruner = Pruner(model, torch.optim.Adam(model.parameters()), Hard(1))
    names = [name for name, _ in model.named_parameters()]
    assert [choice.name for choice in pruner.choices] == names
    assert all(choice.reason for choice in pruner.choices)
    matrices = [name for name in names if ".weight_" in name]
    assert list(pruner.masks) == matrices
    assert len(matrices) == 2 * 2 * 3
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name for name, role in roles_from_shapes(shapes).items() if role != "bias"} == set(matrices)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_trap_15_gates_stand_as_in_torch_and_b_hn_stays_inside_the_reset_product(kind: type[nn.RNNBase]) -> None:
    module = kind(6, 8).double()
    for parameter in module.parameters():
        parameter.data = 2 * torch.randn_like(parameter)  # biases large enough that a misplaced one shows
    (stack,) = find_stacks({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}).stacks
    weights = module.state_dict()
    packed = [reference.pack(csr_from_dense(weights[name])) for name in WEIGHTS]
    layer = Layer(stack.kind, *packed, weights["bias_ih_l0"].unsqueeze(1), weights["bias_hh_l0"].unsqueeze(1))
    h = torch.zeros(8, 4, dtype=torch.float64)
    outputs, _ = run_layer(layer, X.double().transpose(1, 2), (h, h) if stack.kind == "lstm" else (h,))
    torch.testing.assert_close(outputs.transpose(1, 2), module(X.double())[0])
