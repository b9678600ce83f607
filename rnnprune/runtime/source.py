"""Where the weights come from (a sparse file, a run folder, a checkpoint, named tensors), and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rnnprune.architecture import Shape, misfit
from rnnprune.errors import UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.forms import as_csr
from rnnprune.formats.run_folder import model_of
from rnnprune.formats.sparse import is_sparse_file, read_sparse
from rnnprune.kernels.csr import Csr, csr_to_dense, validate_csr
from rnnprune.runtime.weights import PARTS

Source = Path | str | Mapping[str, Csr | Tensor]
MOST_TOLD = 8


def read_source(source: Source) -> dict[str, Csr | Tensor]:
    """Every tensor by name; a matrix that is stored sparse is CSR. InputRefused for a damaged file."""
    if isinstance(source, Mapping):
        for name, tensor in source.items():
            if isinstance(tensor, Csr):
                validate_csr(tensor, name)
        return fold(source)
    path = model_of(Path(source))
    if not is_sparse_file(path):
        return fold(read_checkpoint(path).state_dict())
    file = read_sparse(path)
    tensors = {name: as_csr(item) for name, item in file.tensors.items()}
    return tensors | {alias: tensors[name] for alias, name in file.aliases.items()}


def fold(tensors: Mapping[str, Csr | Tensor]) -> dict[str, Csr | Tensor]:
    """Put the three arrays of a sparse twin's own state dict together again; all else stays as it is."""
    folded = dict(tensors)
    for end in [name for name in tensors if name.endswith(f".{PARTS[0]}")]:
        name = end.removesuffix(f".{PARTS[0]}")
        crow_indices, col_indices, values = (folded.pop(f"{name}.{part}", None) for part in PARTS)
        if not (isinstance(crow_indices, Tensor) and isinstance(col_indices, Tensor) and isinstance(values, Tensor)):
            raise UsageError(f"{name}: of {', '.join(PARTS)} not all are there; save the state dict again")
        folded[name] = Csr(crow_indices, col_indices, values, (len(crow_indices) - 1, -1))
    return folded


def fit(module: nn.Module, weights: Mapping[str, Csr | Tensor], where: str) -> dict[str, Csr | Tensor]:
    """The weights, checked against the module's own state dict. One UsageError lists every difference."""
    expected = {name: item for name, item in module.state_dict(keep_vars=True).items() if isinstance(item, Tensor)}
    sized = {name: _with_columns(name, item, expected.get(name)) for name, item in weights.items()}
    _refuse(misfit(_shapes(expected), _shapes(sized)), where)
    _refuse(tie_problems(expected, sized), where)
    return sized


def _with_columns(name: str, weight: Csr | Tensor, expected: Tensor | None) -> Csr | Tensor:
    """A state dict of a twin does not tell the columns of a matrix; the module does."""
    if not isinstance(weight, Csr) or weight.shape[1] >= 0 or expected is None or expected.ndim != 2:
        return weight
    csr = Csr(weight.crow_indices, weight.col_indices, weight.values, (weight.shape[0], expected.shape[1]))
    if csr.shape[0] == expected.shape[0]:
        validate_csr(csr, name)
    return csr


def masked(module: nn.Module, masks: Mapping[str, Tensor], where: str) -> dict[str, Csr | Tensor]:
    """The module's own tensors with bool masks (True = keep) applied to those that have one."""
    own = {name: item for name, item in module.state_dict().items() if isinstance(item, Tensor)}
    _refuse(misfit(_shapes(own), _shapes(own) | _shapes(masks)), where)
    return {name: item * masks[name] if name in masks else item for name, item in own.items()}


def _shapes(tensors: Mapping[str, Csr | Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def tie_problems(expected: Mapping[str, Tensor], found: Mapping[str, Csr | Tensor]) -> list[str]:
    """Names that are one parameter in the module and two different tensors in the source."""
    first: dict[int, str] = {}
    problems = []
    for name, parameter in expected.items():
        other = first.setdefault(id(parameter), name)
        if other != name and name in found and other in found and not _equal(found[name], found[other]):
            problems.append(f"{other} and {name} are tied in the module and differ in the source")
    return problems


def _equal(a: Csr | Tensor, b: Csr | Tensor) -> bool:
    if a is b:
        return True
    dense = [csr_to_dense(each) if isinstance(each, Csr) else each for each in (a, b)]
    return torch.equal(*dense)


def _refuse(problems: Sequence[str], where: str) -> None:
    if problems:
        more = f" (and {len(problems) - MOST_TOLD} more)" if len(problems) > MOST_TOLD else ""
        raise UsageError(
            f"{where} does not fit the module: {'; '.join(sorted(problems)[:MOST_TOLD])}{more}; "
            "give the very module that was saved"
        )
