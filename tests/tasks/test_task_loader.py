"""A user's own task, loaded from a file or module; every failure names the file, the line and the remedy."""

import sys
import textwrap
from pathlib import Path

import pytest

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.builtin import BUILTIN, builtin_task
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.tasks.loader import load_task
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.source import DataOptions

GOOD = """
    from torch import nn

    class Copy:
        metric = "error"
        goal = "min"

        def __init__(self, data):
            self.data = data

        def build_model(self):
            return nn.LSTM(2, 3)

        def train_batches(self, *, epoch, seed, rank, world_size):
            return []

        def loss(self, model, batch):
            return model(batch)[0].sum()

        def evaluate(self, model, split):
            return {"error": 0.0}

    def make(data=None):
        return Copy(data)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with nothing of it left behind in the import system."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")
    return path


def failure(spec: str, data: Path | None = None) -> tuple[str, BaseException | None]:
    with pytest.raises(UsageError) as caught:
        load_task(spec, data)
    return str(caught.value), caught.value.__cause__


# -- what works --------------------------------------------------------------------------------------------------------


def test_a_file_relative_to_the_current_folder_with_and_without_data(folder):
    write(folder / "my_task.py", GOOD)
    task = load_task("my_task.py:make")
    assert isinstance(task, Task)
    assert task.data is None
    assert load_task("./my_task.py:make", Path("words.txt")).data == Path("words.txt")
    assert load_task(f"{folder / 'my_task.py'}:make").metric == "error"


def test_a_module_of_the_current_folder(folder):
    write(folder / "mine" / "__init__.py", "")
    write(folder / "mine" / "tasks.py", GOOD)
    assert load_task("mine.tasks:make").goal == "min"


def test_a_class_may_stand_in_for_the_function(folder):
    write(folder / "my_task.py", GOOD)
    assert load_task("my_task.py:Copy", Path("x")).data == Path("x")


def test_a_neighbour_can_be_imported_at_the_top_and_inside_make(folder):
    write(folder / "deep" / "neighbour_a.py", "VALUE = 1")
    write(folder / "deep" / "neighbour_b.py", "VALUE = 2")
    good = textwrap.dedent(GOOD).replace("return Copy(data)", "import neighbour_b\n    return Copy(neighbour_b.VALUE)")
    write(folder / "deep" / "my_task.py", "import neighbour_a\n" + good)
    assert load_task("deep/my_task.py:make").data == 2


def test_a_file_named_like_a_standard_module_does_not_replace_it(folder):
    import random

    write(folder / "elsewhere" / "random.py", GOOD)
    load_task("elsewhere/random.py:make")
    assert sys.modules["random"] is random


def test_dataclasses_in_the_file_find_their_module(folder):
    head = "from __future__ import annotations\nfrom dataclasses import dataclass, field\n"
    body = "@dataclass\nclass Sizes:\n    hidden: int = 3\n    names: list[str] = field(default_factory=list)\n"
    write(folder / "my_task.py", head + body + textwrap.dedent(GOOD))
    assert load_task("my_task.py:make").metric == "error"


# -- what is said when it does not ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("my_task.py", "for example my_task.py:make"),
        (r"C:\work\my_task.py", r"for example C:\work\my_task.py:make"),
        ("my_task.py:", "expected FILE.py:FUNCTION or MODULE:FUNCTION"),
        (":make", "expected FILE.py:FUNCTION or MODULE:FUNCTION"),
        ("lm", "built in, and found by itself in checkpoints of `rnnprune train lm`"),
    ],
)
def test_a_spec_that_cannot_be_taken_apart(spec, expected):
    assert expected in failure(spec)[0]


@pytest.mark.usefixtures("folder")
def test_a_windows_drive_letter_belongs_to_the_path():
    assert r"there is no file C:\work\my_task.py in" in failure(r"C:\work\my_task.py:make")[0]


def test_a_missing_file_names_the_folder_that_was_searched(folder):
    assert f"there is no file my_task.py in {folder}" in failure("my_task.py:make")[0]


@pytest.mark.usefixtures("folder")
def test_a_missing_module_says_what_to_install():
    message, cause = failure("no_such_package_anywhere:make")
    assert "install no_such_package_anywhere into this environment" in message
    assert isinstance(cause, ModuleNotFoundError)


def test_an_error_during_the_import_names_the_line(folder):
    write(folder / "my_task.py", "import math\n\nmath.sqrt(-1)\n")
    message, cause = failure("my_task.py:make")
    assert "my_task.py:3: the file cannot be imported: ValueError: " in message
    assert isinstance(cause, ValueError)
    assert "_rnnprune_task_my_task" not in sys.modules


def test_an_error_in_a_neighbour_names_the_neighbours_line(folder):
    write(folder / "broken_neighbour.py", "x = 1\n\n1 / 0\n")
    write(folder / "my_task.py", "import broken_neighbour\n")
    assert "broken_neighbour.py:3: the file cannot be imported: ZeroDivisionError" in failure("my_task.py:make")[0]


def test_an_error_deep_in_a_library_names_the_users_line(folder):
    write(folder / "my_task.py", "import json\ndef make():\n    return json.loads('{')\n")
    message, _ = failure("my_task.py:make")
    assert "my_task.py:3: make() failed: JSONDecodeError" in message
    assert "mend that line" in message


def test_no_line_is_spoken_of_where_none_is_known(folder):
    write(folder / "my_task.py", "import functools, math\nmake = functools.partial(math.sqrt, -1)\n")
    message, _ = failure("my_task.py:make")
    assert message.startswith("my_task.py: make() failed: ValueError")
    assert message.endswith("; mend the task and try again")


def test_a_syntax_error_names_its_line(folder):
    write(folder / "my_task.py", "x = 1\ndef make(:\n")
    message, cause = failure("my_task.py:make")
    assert "my_task.py:2: the file cannot be imported: SyntaxError" in message
    assert isinstance(cause, SyntaxError)


def test_a_script_that_ends_itself_is_told_about_main(folder):
    write(folder / "my_task.py", "import sys\nsys.exit(3)\n")
    message, _ = failure("my_task.py:make")
    assert "my_task.py:2: the file cannot be imported: SystemExit: 3" in message
    assert '`if __name__ == "__main__":`' in message


def test_a_missing_import_of_the_users_file_says_what_to_install(folder):
    write(folder / "my_task.py", "import no_such_package_anywhere\n")
    message, _ = failure("my_task.py:make")
    assert "my_task.py:1:" in message
    assert "install no_such_package_anywhere" in message


def test_our_own_errors_in_the_users_code_become_usage_errors_that_name_the_users_line(folder):
    write(
        folder / "my_task.py",
        """
        from pathlib import Path
        from rnnprune.tasks.text import read_text

        def make(data=None):
            return read_text(Path("nowhere.txt"))
        """,
    )
    message, cause = failure("my_task.py:make")
    assert "my_task.py:5: make() failed: UsageError: nowhere.txt: does not exist" in message
    assert isinstance(cause, UsageError)


def test_a_misspelt_function_gets_a_suggestion(folder):
    write(folder / "my_task.py", "def make_task():\n    pass\n")
    assert (
        "there is no function maketask in it; did you mean my_task.py:make_task?" in failure("my_task.py:maketask")[0]
    )
    write(folder / "empty.py", "make = 3\n")
    assert "there is no function create in it; write `def create()" in failure("empty.py:create")[0]
    assert "make is an object of type int, not a function" in failure("empty.py:make")[0]


def test_a_function_that_cannot_take_data_or_cannot_do_without(folder):
    write(folder / "my_task.py", "\ndef make():\n    pass\n\ndef needy(data):\n    pass\n")
    message, _ = failure("my_task.py:make", Path("x"))
    assert "my_task.py:1: cannot be called as make(data=...)" in message
    assert "write `def make(data=None)`" in message
    message, _ = failure("my_task.py:needy")
    assert "my_task.py:4: cannot be called as needy(): missing a required argument: 'data'" in message
    assert "pass --data PATH" in message


def test_all_that_is_missing_is_reported_at_once(folder):
    write(
        folder / "my_task.py",
        """
        class Half:
            goal = "lowest"
            loss = None
            def build_model(self):
                pass
            def train_batches(self, epoch):
                pass
            def evaluate(self, model):
                pass
        def make():
            return Half()
        """,
    )
    message, _ = failure("my_task.py:make")
    assert message.startswith("my_task.py:10: make() returned an object of type Half, which is not a task: ")
    for expected in (
        "no `metric`",
        '`goal` is \'lowest\', not "min" or "max"',
        "`train_batches` cannot be called as `train_batches(epoch=..., seed=..., rank=..., world_size=...)`",
        "no `loss(model, batch)`",
        "`evaluate` cannot be called as `evaluate(model, split)`: too many positional arguments",
        "rnnprune/tasks/protocol.py shows all of them",
    ):
        assert expected in message
    assert "build_model" not in message


def test_a_make_that_forgot_to_return(folder):
    write(folder / "my_task.py", "def make():\n    pass\n")
    message, _ = failure("my_task.py:make")
    assert "my_task.py:1: make() returned None, which is not a task: no `metric`; no `goal`; " in message


def test_a_property_that_raises_is_reported_with_its_line(folder):
    write(
        folder / "my_task.py",
        """
        class Odd:
            @property
            def metric(self):
                raise RuntimeError("later")
        def make():
            return Odd()
        """,
    )
    message, _ = failure("my_task.py:make")
    assert "my_task.py:4: what make() returned cannot be looked at: RuntimeError: later" in message


# -- the built-in tasks ------------------------------------------------------------------------------------------------


def test_a_checkpoint_picks_a_built_in_task_by_name(letters):
    task = LmTask.from_text(letters, LmModelSpec(hidden=4, embedding=4))
    again = builtin_task(task.metadata, DataOptions(batch_size=5, length=9))
    assert isinstance(again, LmTask)
    assert (again.spec, again.batch_size, again.length) == (task.spec, 5, 9)
    assert again.metadata == task.metadata | {"batches": {"batch_size": 5, "length": 9}}
    assert "lm" in BUILTIN


@pytest.mark.parametrize("metadata", [{}, {"task": "evil.py:make"}, {"task": ["lm"]}, {"task": None}, [], None])
def test_a_checkpoint_cannot_name_code(metadata):
    with pytest.raises(InputRefused, match=r"rnnprune\.task: .* is not built in \(built in: lm\b.*\); pass --task"):
        builtin_task(metadata)
