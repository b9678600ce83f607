"""What users may import, as a literal list: a change here is a change of the contract, and of the changelog."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rnnprune
from rnnprune.formats.sparse import csr_or_dense, write_sparse

NAMES = [
    "Block",
    "Cubic",
    "Diverged",
    "GoalMissed",
    "Gradual",
    "Hard",
    "InputRefused",
    "Pruner",
    "RnnpruneError",
    "Selection",
    "StorageError",
    "Timing",
    "UsageError",
    "__version__",
    "describe",
    "load",
    "plan_schedule",
    "read_checkpoint",
    "read_sparse",
    "sparsify",
]


def test_the_public_names_are_these() -> None:
    assert rnnprune.__all__ == NAMES
    assert dir(rnnprune) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(rnnprune, name)
    assert name == "__version__" or (value.__name__ == name and value.__doc__)


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["read_checkpoint", "read_sparse", "sparsify"])
def test_a_path_may_be_a_string(name: str, kind: type, tmp_path: Path) -> None:
    path, layer = tmp_path / "a.safetensors", torch.nn.Linear(8, 8, bias=False)
    write_sparse(path, {"weight": csr_or_dense(torch.eye(8))}, {}, {})
    read = getattr(rnnprune, name)
    read(*([layer] if name == "sparsify" else []), kind(path))


def test_a_star_import_brings_all_of_them() -> None:
    namespace: dict[str, object] = {}
    exec("from rnnprune import *", namespace)  # the only way to run one
    assert set(NAMES) <= namespace.keys()


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'rnnprune' has no attribute 'Prunner'"):
        rnnprune.Prunner  # noqa: B018


def test_the_type_checker_and_the_interpreter_see_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(rnnprune))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert isinstance(block.test, ast.Name)
    assert block.test.id == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    assert seen == {name: (home, name) for name, home in rnnprune._HOME.items()}


def test_importing_rnnprune_imports_nothing_heavy() -> None:
    code = "import sys, rnnprune; print([m for m in ('torch', 'numpy', 'scipy', 'typer') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
