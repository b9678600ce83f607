"""What must hold for any file: refused in one clear sentence, or accepted with a content that an independent reader
finds too and that every command which takes a file can work with."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rnnprune.errors import InputRefused, UsageError
from rnnprune.formats.checkpoint import Checkpoint, read_checkpoint
from rnnprune.formats.forms import as_csr
from rnnprune.formats.sparse import SparseFile, is_sparse_file, read_sparse
from rnnprune.kernels import native
from rnnprune.kernels.csr import Csr
from rnnprune.runtime.engines import make_product
from rnnprune.runtime.sparsify import sparsify
from rnnprune.runtime.weights import in_float32
from rnnprune.tasks.lm import LmModel
from rnnprune.workflows.load import load
from rnnprune.workflows.report import report
from tests.fuzz import checker
from tests.fuzz.bases import model
from tests.fuzz.mutate import Victim

T = TypeVar("T")
Array = np.ndarray[Any, Any]
TOLERANCE = 1e-5
FLOAT32 = np.finfo(np.float32)
ENGINE = "native" if native.unavailable_reason() is None else "torch-csr"


class Fault(AssertionError):
    """What a file made go wrong."""


def judge(path: Path, victim: Victim, everything: bool = True) -> bool:
    """Whether the file is accepted; Fault, or whatever was raised that is no refusal, is a bug.

    everything: give an accepted file to all that reads files, not to its first reader alone.
    """
    if not is_sparse_file(path):
        found = _refusal(path, lambda: read_checkpoint(path))
        if isinstance(found, Checkpoint):
            _same_arrays(found, victim.data)
    else:
        found, broken = _refusal(path, lambda: read_sparse(path)), None
        try:
            truth = checker.check(victim.data)
        except checker.Broken as error:
            broken = error
        if (broken is not None) != isinstance(found, str):
            raise Fault(f"the reader says {found if isinstance(found, str) else 'yes'}, the checker {broken or 'yes'}")
        if isinstance(found, SparseFile):
            _same_content(found, truth, everything)
    if isinstance(found, str):
        return False
    if everything:
        _refusal(path, lambda: read_checkpoint(path))
        _refusal(path, lambda: report(path).to_json())
        _run_model(path, victim.base)
    return True


def _refusal(path: Path, read: Callable[[], T], *allowed: type[Exception]) -> T | str:
    """What was read, or the sentence with which it was refused, which a terminal can show and a person understand."""
    try:
        return read()
    except (InputRefused, *allowed) as error:
        text = str(error)
        if not text.isprintable() or len(text) > 3000 or str(path) not in text or "; " not in text:
            raise Fault(f"a refusal that helps nobody: {text[:3000]!r}") from error
        return text


def _same_content(found: SparseFile, truth: checker.Contents, everything: bool) -> None:
    if found.tensors.keys() != truth.matrices.keys() | truth.arrays.keys() or found.aliases != truth.aliases:
        raise Fault(f"names {sorted(found.tensors)}, aliases {found.aliases}")
    for name, item in found.tensors.items():
        if isinstance(item, Tensor):
            _same_bytes(name, item, truth.arrays[name])
        elif 0 not in item.shape:
            csr = as_csr(item)
            assert isinstance(csr, Csr)
            _same_elements(name, csr, truth.matrices[name])
            if everything:
                _same_product(name, csr, truth.matrices[name])


def _same_bytes(name: str, tensor: Tensor, stored: checker.Stored) -> None:
    flat = tensor.contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if (dtype, list(tensor.shape), data) != (checker.DTYPES[stored.dtype][0], stored.shape, stored.data):
        raise Fault(f"{name}: {dtype} {list(tensor.shape)}, stored {stored.dtype} {stored.shape}")


def _same_elements(name: str, csr: Csr, truth: Any) -> None:
    """Pointers, indices and values, to the last bit."""
    held = (csr.crow_indices.numpy(), csr.col_indices.numpy(), csr.values.double().numpy())
    if csr.shape != truth.shape or not all(map(np.array_equal, held, (truth.indptr, truth.indices, truth.data))):
        raise Fault(f"{name}: {csr.shape} with {csr.nnz} values, scipy finds {truth.shape} with {truth.nnz}, or others")


def _same_product(name: str, csr: Csr, truth: Any) -> None:
    """The engine's product beside scipy's in float64; a row beyond float32 may be what it likes."""
    x = np.resize(np.linspace(-1, 1, 997), csr.shape[1])
    with np.errstate(all="ignore"):
        bound = abs(truth) @ np.abs(x)
        expected = truth @ x
        y = (
            make_product(in_float32(csr), ENGINE, 1, torch.device("cpu"))(torch.from_numpy(x).float().unsqueeze(1))
            .squeeze(1)
            .numpy()
        )
        wrong = np.abs(y - expected) > TOLERANCE * bound + 1e-30
    if (wrong & (bound < FLOAT32.max)).any():
        raise Fault(f"{name}: the product is off by {np.abs(y - expected).max()}")


def _same_arrays(found: Checkpoint, data: bytes) -> None:
    """Every element is really there; safetensors and npz hold what numpy finds in them."""
    for tensor in found.state_dict().values():
        tensor.contiguous().view(-1)[:: max(1, tensor.numel() // 64)].clone()
        tensor.clone()
    if found.kind == "safetensors":
        arrays, _ = checker.container(data)
        for name, tensor in found.tensors.items():
            if name in arrays:
                _same_bytes(name, tensor, arrays[name])
    if found.kind == "npz":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = np.load(io.BytesIO(data), allow_pickle=False)
            for name, tensor in found.tensors.items():
                if name in arrays and not np.array_equal(arrays[name], tensor.numpy(), equal_nan=True):
                    raise Fault(f"{name} is not what numpy reads")


def _run_model(path: Path, base: str) -> None:
    """The model that the file was made for takes it, or says why not."""
    module: nn.Module | str
    if base.startswith("lm"):
        module = _refusal(path, lambda: load(path), UsageError)
    else:
        module = _refusal(path, lambda: sparsify(model(base), path, engine=ENGINE), UsageError)  # type: ignore[arg-type]
    if isinstance(module, nn.Module):
        with torch.inference_mode():
            module(torch.zeros(1, 3, dtype=torch.long) if isinstance(module, LmModel) else torch.ones(2, 1, 8))
