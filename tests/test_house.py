"""The habits of the house that a machine can hold: short files, floors, a light `--help`."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rnnprune"
LONGEST = 300
LONGER_FOR_A_REASON: dict[str, str] = {}  # "rnnprune/folder/file.py": the reason


def test_no_file_is_long_without_a_reason() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert len(lengths) > 20
    too_long = {name for name, length in lengths.items() if length > LONGEST}
    assert too_long == set(LONGER_FOR_A_REASON)
    assert all(LONGER_FOR_A_REASON.values())


def test_nothing_is_called_utils() -> None:
    names = {path.stem for folder in (PACKAGE, ROOT / "tests") for path in folder.rglob("*")}
    assert not names & {"util", "utils", "helpers", "misc", "common"}


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in PACKAGE.rglob("*.py") if not path.read_text(encoding="utf-8").startswith('"""')]
    assert silent == []


# The floors


def test_the_floors_import_only_downwards() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


def test_every_folder_stands_on_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (floors,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    (front_door_only,) = [contract for contract in contracts if "typer" in contract.get("forbidden_modules", [])]
    named = {name.strip() for floor in floors for name in floor.split("|")}
    there = {
        f"rnnprune.{path.stem}"
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.name.startswith("__")
    }
    assert named == there
    assert set(front_door_only["source_modules"]) == there - {"rnnprune.cli"}


# The command line starts light


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'numpy', 'scipy', 'safetensors', 'jaxtyping')\n"
        "atexit.register(lambda: print('heavy:', [name for name in heavy if name in sys.modules]))\n"
        "sys.argv = ['rnnprune', *sys.argv[1:]]\n"
        "from rnnprune.cli import main\n"
        "main()\n"
    )
    for arguments in (["--help"], ["finetune", "--help"], ["--version"]):
        run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert run.stdout.strip().endswith("heavy: []"), (arguments, run.stdout[-200:])
        assert "rnnprune" in run.stdout
