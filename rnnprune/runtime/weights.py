"""A pruned weight inside a module: CSR arrays as buffers, so that state_dict, torch.save and deepcopy just work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.kernels.csr import Csr, csr_from_dense, csr_problem, csr_to_dense

PARTS = ("crow_indices", "col_indices", "values")
CPU = torch.device("cpu")


class SparseWeight(nn.Module):
    """One matrix [rows, cols] in float32. Its buffers are `crow_indices`, `col_indices` and `values` (kernels/csr.py).

    Where a dense layer has the parameter `weight_hh_l0`, its twin has a SparseWeight of that name, and its state dict
    the three keys `weight_hh_l0.crow_indices`, `weight_hh_l0.col_indices`, `weight_hh_l0.values`.
    """

    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor

    def __init__(self, csr: Csr, device: torch.device = CPU) -> None:
        super().__init__()
        csr = in_float32(csr, device)
        self.shape = csr.shape
        for part in PARTS:
            self.register_buffer(part, getattr(csr, part))

    @property
    def csr(self) -> Csr:
        """The matrix; its arrays are the buffers themselves."""
        return Csr(self.crow_indices, self.col_indices, self.values, self.shape)

    def to_dense(self) -> Tensor:
        """A new dense tensor [rows, cols]."""
        return csr_to_dense(self.csr)

    def forward(self, *_: Any) -> Tensor:
        """Not callable: the layer that holds it multiplies."""
        raise UsageError("a SparseWeight holds a matrix, it does not run; call the layer that it belongs to")

    def extra_repr(self) -> str:
        """Shape and nonzeros, for print(module)."""
        return f"{list(self.shape)}, nnz={self.values.numel()}"

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: uint16, which torch cannot pickle by itself, travels as int16."""
        return {
            **self.__dict__,
            "_buffers": {**self._buffers, "col_indices": _retyped(self.col_indices, "uint", "int")},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._buffers["col_indices"] = _retyped(self.col_indices, "int", "uint")

    def _load_from_state_dict(  # noqa: PLR0917 - torch calls it so
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take arrays of any nnz, none that breaks an invariant of kernels/csr.py: native code indexes with them."""
        arrays = [state_dict.get(f"{prefix}{part}") for part in PARTS]
        crow_indices, col_indices, values = arrays
        if crow_indices is not None and col_indices is not None and values is not None:
            problem = csr_problem(crow_indices, col_indices, values, self.shape)
            if problem is None and values.dtype != torch.float32:
                problem = f"values are {values.dtype}, expected torch.float32"
            if problem is not None:
                error_msgs.append(f"{prefix.removesuffix('.')}: {problem}")
                return
            self.col_indices = torch.empty_like(col_indices, device=self.crow_indices.device)
            self.values = torch.empty_like(values, device=self.crow_indices.device)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        require_no_move(fn, self.crow_indices.device)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


def _retyped(indices: Tensor, before: str, after: str) -> Tensor:
    """The same 16-bit indices under the other type; wider ones as they are."""
    return indices.view(getattr(torch, f"{after}16")) if indices.dtype == getattr(torch, f"{before}16") else indices


def in_float32(csr: Csr, device: torch.device = CPU) -> Csr:
    """The same matrix with float32 values; those too small for float32 become zeros, which are not stored."""
    values = csr.values.detach().to(device, torch.float32)
    if not bool(values.all()):
        return in_float32(csr_from_dense(csr_to_dense(csr).to(torch.float32)), device)
    return Csr(csr.crow_indices.to(device), csr.col_indices.to(device), values, csr.shape)


def require_no_move(fn: Callable[[Tensor], Tensor], device: torch.device) -> None:
    """Refuse `.to(...)`, `.half()`, `.cuda()` and their like, which torch carries out as fn(every tensor), unless they
    change nothing."""
    probe = fn(torch.zeros(1, device=device))
    if probe.dtype != torch.float32 or probe.device != device:
        dtype, place = str(probe.dtype).removeprefix("torch."), "the CPU" if device == CPU else str(device)
        raise UsageError(
            f"sparse layers compute in float32 on {place} and cannot move to {dtype} on {probe.device}; "
            "convert the dense model instead, or leave this one where it is"
        )
