"""What every sparse twin shares: forward only, where its layer was, an engine packed from the weights when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.kernels.csr import Csr
from rnnprune.kernels.native_layer import State
from rnnprune.runtime.weights import SparseWeight, require_no_move

Packed = TypeVar("Packed")


@dataclass(frozen=True)
class Choice:
    """Which engine a layer took (`native`, `torch-dense-fp32`, ...), why, and the share of zeros in its matrices."""

    engine: str
    reason: str
    sparsity: float


class SparseTwin(nn.Module, Generic[Packed]):
    """Stands in for a layer of torch. What it runs is made by `pack` at first use, and never copied or saved."""

    def __init__(self, dense: nn.Module, choice: Choice, threads: int) -> None:
        super().__init__()
        self.stands_for = type(dense).__name__
        self.choice, self.threads = choice, threads
        like = next(dense.parameters())
        self.device, self.dtype = like.device, like.dtype  # of inputs and outputs; every engine computes in float32
        self._packed: Packed | None = None

    @property
    def name(self) -> str:
        """The class, for messages."""
        return type(self).__name__

    def pack(self) -> Packed:
        """Hand the matrices to the engine; subclasses say how."""
        raise NotImplementedError

    @property
    def packed(self) -> Packed:
        """What `pack` made, from the weights as they are since they were last loaded."""
        if self._packed is None:
            self._packed = self.pack()
        return self._packed

    @property
    def layout(self) -> str:
        """The layout of the engine's main matrix at batch 1, "" where it has only one; subclasses say how."""
        raise NotImplementedError

    def hold(self, tensors: Mapping[str, SparseWeight | nn.Parameter | None]) -> None:
        """Take matrices as submodules and biases as parameters, each under the name that torch gives it."""
        for name, tensor in tensors.items():
            if isinstance(tensor, SparseWeight):
                self.add_module(name, tensor)
            else:
                self.register_parameter(name, tensor)

    def csr_of(self, name: str) -> Csr:
        """The matrix of this name."""
        weight = getattr(self, name)
        assert isinstance(weight, SparseWeight)
        return weight.csr

    def bias_of(self, name: str) -> Tensor | None:
        """The bias of this name, None where the layer has none."""
        bias = self._parameters.get(name)
        return None if bias is None else bias.detach()

    def check_input(self, x: Tensor, features: int) -> None:
        """UsageError for training, gradients, another dtype, another device or another number of features."""
        if self.training:
            raise UsageError(
                f"{self.name} runs forward only and is in training mode; call .eval(), train the dense model"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise UsageError(
                f"{self.name} has no backward pass and its input requires a gradient; "
                "call it under torch.inference_mode() or detach the input"
            )
        if x.dtype != self.dtype or x.device != self.device or x.ndim == 0 or x.shape[-1] != features:
            raise UsageError(
                f"{self.name}: input is {x.dtype} {list(x.shape)} on {x.device}, "
                f"expected {self.dtype} [..., {features}] on {self.device}"
            )

    def check_state(self, hx: Any, shapes: Sequence[Sequence[int]]) -> State:
        """The state as a tuple of h (and c). UsageError for another number, shape or dtype, or a gradient."""
        state = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
        if [list(part.shape) for part in state] != [list(shape) for shape in shapes] or any(
            part.dtype != self.dtype or part.device != self.device for part in state
        ):
            found = ", ".join(f"{part.dtype} {list(part.shape)} on {part.device}" for part in state)
            expected = ", ".join(str(list(shape)) for shape in shapes)
            raise UsageError(f"{self.name}: state is {found}; expected {self.dtype} {expected} on {self.device}")
        if torch.is_grad_enabled() and any(part.requires_grad for part in state):
            raise UsageError(f"{self.name} has no backward pass and its state requires a gradient; detach it")
        return state

    def __getstate__(self) -> dict[str, Any]:
        """For copy.deepcopy and pickle: everything but the packed engine, which is made again."""
        return {**self.__dict__, "_packed": None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        require_no_move(fn, self.device)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
