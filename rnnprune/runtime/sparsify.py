"""sparsify: swap recurrent and linear layers of any module for sparse twins; describe: which engine each one took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.kernels.csr import Csr, csr_from_dense, csr_to_dense
from rnnprune.runtime import choice_cuda
from rnnprune.runtime.cells import SparseCell, SparseLinear
from rnnprune.runtime.choice import Engines, Part, choose, plain_problem, resolve_engine
from rnnprune.runtime.options import DENSE, TRITON, EngineName
from rnnprune.runtime.recurrent import SparseRecurrent
from rnnprune.runtime.source import Source, fit, masked, read_source
from rnnprune.runtime.twin import Choice, SparseTwin
from rnnprune.runtime.weights import SparseWeight

TWINS: Mapping[type[nn.Module], type[SparseRecurrent] | type[SparseCell] | type[SparseLinear]] = {
    nn.RNN: SparseRecurrent,
    nn.GRU: SparseRecurrent,
    nn.LSTM: SparseRecurrent,
    nn.RNNCell: SparseCell,
    nn.GRUCell: SparseCell,
    nn.LSTMCell: SparseCell,
    nn.Linear: SparseLinear,
}
PART: Mapping[type[nn.Module], Part] = {kind: "linear" if kind is nn.Linear else "recurrent" for kind in TWINS}
READS_WEIGHTS = (nn.TransformerEncoderLayer, nn.MultiheadAttention)  # parents for which a Linear is not only called
HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
LEFT_DENSE = "_rnnprune_choice"  # on a layer that was looked at and stays torch's own


@dataclass(frozen=True)
class LayerEngine:
    """One recurrent or linear layer of a module: what runs it, and why.

    layer: torch's name of it, `LSTM`. layout: how the engine holds its (recurrent) matrix at batch 1, `sell8` or
    `16x1`; "" for engines that know only one way. sparsity: share of zeros in its matrices; 0.0, not counted, for a
    layer that stays dense whatever they hold (for its dtype, class or parent, or by the rules of triton).
    """

    name: str
    layer: str
    engine: str
    layout: str
    sparsity: float
    reason: str

    def __str__(self) -> str:
        """`rnn (LSTM): native:window, 93.4% of 32,768 weights are zero`."""
        engine = f"{self.engine}:{self.layout}" if self.layout else self.engine
        return f"{self.name or 'the model'} ({self.layer}): {engine}, {self.reason}"


def sparsify(
    module: nn.Module,
    source: Source | None = None,
    *,
    engine: EngineName = "auto",
    threads: int | None = None,
    batch: int = 1,
) -> nn.Module:
    """Load weights into a module and swap its pruned layers for sparse twins, called and answering as before.

    source: a sparse file, run folder or checkpoint; a mapping of names to tensors (a state dict, also that of a
    sparsified module; or bool masks of some parameters, True = keep); None for the module's own weights as they are.
    engine: `auto` picks native, or triton for a module on a GPU, where it is faster by rules, and tells why not where
    it is not (`describe`); any other name takes that engine for every layer that sparse storage makes smaller.
    threads: of the native engine, torch.get_num_threads() if not given. batch: that you are going to run, for the
    rules of `auto` on a GPU.

    Swaps nn.RNN, GRU, LSTM, their cells and nn.Linear in place, wherever they are; returns the module (its twin, if it
    is such a layer itself) in eval mode, no parameter requiring a gradient. Raises UsageError where names or shapes
    differ or the engine cannot run, InputRefused for a damaged file; the module is then as it was.
    """
    how = How(resolve_engine(engine, _device_of(module)), threads or torch.get_num_threads(), batch, _device_of(module))
    for name, count in (("threads", threads), ("batch", batch)):
        if count is not None and count < 1:
            raise UsageError(f"{name} must be at least 1, found {count}")
    weights = _weights(module, source)
    plan = _plan(module, weights, how)
    if source is not None:
        _load_dense(module, weights, plan)
    for twin in plan.twins.values():
        _ = twin.packed  # now, so that an engine that refuses does so here, and the first call is as fast as the next
    return _swap(module, plan).eval().requires_grad_(False)


def describe(module: nn.Module) -> tuple[LayerEngine, ...]:
    """Which engine every layer that `sparsify` looked at has, and why; () for a module that it never saw."""
    found = []
    for name, layer in module.named_modules():
        choice = layer.choice if isinstance(layer, SparseTwin) else getattr(layer, LEFT_DENSE, None)
        if isinstance(choice, Choice):
            label = layer.stands_for if isinstance(layer, SparseTwin) else type(layer).__name__
            layout = layer.layout if isinstance(layer, SparseTwin) else ""
            found.append(LayerEngine(name, label, choice.engine, layout, choice.sparsity, choice.reason))
    return tuple(found)


def engines_of(module: nn.Module) -> str:
    """The engines that a module really runs on, each once: `native`, or `native+torch-dense-fp32`."""
    return "+".join(sorted({layer.engine for layer in describe(module)})) or DENSE


def _weights(module: nn.Module, source: Source | None) -> dict[str, Csr | Tensor]:
    """Every tensor of the module by name, as it shall be."""
    if source is None:
        return {name: item for name, item in module.state_dict().items() if isinstance(item, Tensor)}
    weights = read_source(source)
    where = "the mapping" if isinstance(source, Mapping) else str(source)
    masks = {name: item for name, item in weights.items() if isinstance(item, Tensor) and item.dtype == torch.bool}
    if weights and len(masks) == len(weights):
        return masked(module, masks, where)
    return fit(module, weights, where)


class How(NamedTuple):
    """What was asked for, and where the module is."""

    engines: Engines
    threads: int
    batch: int
    device: torch.device


@dataclass(frozen=True)
class Plan:
    """What sparsify will do: the choice for every layer it knows, and the twins of those that get one."""

    choices: dict[nn.Module, Choice]
    twins: dict[nn.Module, SparseTwin[Any]]


def _plan(module: nn.Module, weights: Mapping[str, Csr | Tensor], how: How) -> Plan:
    """Nothing is changed yet. Tied parameters stay tied: one SparseWeight, one bias."""
    plan = Plan({}, {})
    shared: dict[int, SparseWeight] = {}
    for prefix, layer in module.named_modules():
        base = next((kind for kind in TWINS if isinstance(layer, kind)), None)
        if base is None:
            continue
        matrices = {
            name: weights[f"{prefix}.{name}" if prefix else name]
            for name, parameter in layer._parameters.items()
            if parameter is not None and parameter.ndim == 2
        }
        problem = plain_problem(layer, base, how.engines.name, how.device) or _parent_problem(module, prefix)
        if not problem and how.engines.name == TRITON and how.engines.by_rules:
            problem = choice_cuda.dense_because(layer, how.batch)
        choice = Choice(DENSE, problem, 0.0) if problem else choose(PART[base], matrices, how.engines)
        plan.choices[layer] = choice
        if choice.engine == DENSE:
            continue
        for name, matrix in matrices.items():
            shared.setdefault(id(layer._parameters[name]), SparseWeight(_csr(matrix), how.device))
        tensors = {name: shared.get(id(parameter), parameter) for name, parameter in layer._parameters.items()}
        plan.twins[layer] = TWINS[base](layer, tensors, choice, how.threads)
    return plan


def _device_of(module: nn.Module) -> torch.device:
    """Of its first parameter; a layer elsewhere stays dense, and says so."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _parent_problem(module: nn.Module, prefix: str) -> str | None:
    parent = module.get_submodule(prefix.rpartition(".")[0])
    if isinstance(parent, READS_WEIGHTS):
        return f"{type(parent).__name__} reads its weight directly"
    return None


def _csr(matrix: Csr | Tensor) -> Csr:
    return matrix if isinstance(matrix, Csr) else csr_from_dense(matrix.detach().to("cpu", torch.float32))


def _load_dense(module: nn.Module, weights: Mapping[str, Csr | Tensor], plan: Plan) -> None:
    """Load everything that no twin holds sparse; the names and shapes are known to fit."""
    held = {
        id(parameter) for layer in plan.twins for parameter in layer.parameters(recurse=False) if parameter.ndim == 2
    }
    outside = {id(p) for m in module.modules() if m not in plan.twins for p in m.parameters(recurse=False)}
    dense = {
        name: csr_to_dense(weight) if isinstance(weight, Csr) else weight
        for name, weight in weights.items()
        if id(_find(module, name)) not in held - outside
    }
    module.load_state_dict(dense, strict=False)


def _find(module: nn.Module, name: str) -> object:
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf, None)


def _swap(module: nn.Module, plan: Plan) -> nn.Module:
    """Put every twin where its layer is, under all its names, with its hooks."""
    for layer, choice in plan.choices.items():
        if layer not in plan.twins:
            setattr(layer, LEFT_DENSE, choice)
    for layer, twin in plan.twins.items():
        for hooks in HOOKS:
            getattr(twin, hooks).update(getattr(layer, hooks))
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in plan.twins:
                parent._modules[name] = plan.twins[child]
    return plan.twins.get(module, module)
