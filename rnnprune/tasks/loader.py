"""Find a user's own task, in a file, module or installed plugin named on the command line.

Only the command line and the user's own configuration reach `load_task`; what a checkpoint says can only pick a name
from `tasks.builtin.BUILTIN`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast, get_args

from torch import nn

from rnnprune.errors import UsageError
from rnnprune.tasks.builtin import BUILTIN
from rnnprune.tasks.options import Goal
from rnnprune.tasks.protocol import Task

PLUGINS = "rnnprune.tasks"  # the group of entry points in which installed packages name their tasks
_INSTALLED = ("site-packages", "dist-packages")
_NOT_THE_USERS = (Path(sysconfig.get_paths()["stdlib"]), Path(__file__).parents[1])


class TaskSpec(NamedTuple):
    """`--task` taken apart: a file (ends in .py) or a dotted module, and the function in it."""

    target: str
    function: str

    @property
    def is_file(self) -> bool:
        return self.target.endswith(".py")


def load_task(spec: str, data: Path | None = None) -> Task:
    """Import `my_task.py:make` or `package.module:make`, call it, and check what it returns.

    A plain NAME is looked up among the entry points that installed packages put in the group `rnnprune.tasks`.

    `make(data=...)` when data is given, else `make()`. Whatever goes wrong is a UsageError that names the file, the
    line of the user's code and the remedy; the user's own error is chained as its cause.
    """
    arguments = {} if data is None else {"data": data}
    task_spec = _parse(spec)
    make, task = _call(task_spec, arguments)
    with user_code(task_spec.target, f"what {task_spec.function}() returned cannot be looked at"):
        problems = _problems(task)
    if problems:
        raise UsageError(
            f"{_line_of(make, task_spec)}: {task_spec.function}() returned {_described(task)}, which is not a task: "
            + "; ".join(problems)
            + "; rnnprune/tasks/protocol.py shows all of them"
        )
    return cast(Task, task)


def load_model_function(spec: str) -> nn.Module:
    """Import `my_model.py:build`, call it, and check that it returns an nn.Module. Errors as in `load_task`."""
    model_spec = _parse(spec)
    build, model = _call(model_spec, {})
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{_line_of(build, model_spec)}: {model_spec.function}() returned {_described(model)}, not a "
            "torch.nn.Module"
        )
    return model


def _call(spec: TaskSpec, arguments: Mapping[str, object]) -> tuple[Callable[..., object], object]:
    """Import the user's function and call it: the function, and what it returned."""
    folder = Path(spec.target).resolve().parent if spec.is_file else Path.cwd()
    with _first_on_path(folder):
        make = _find_function(_import(spec), spec)
        _check_call(make, spec, arguments)
        with user_code(spec.target, f"{spec.function}() failed"):
            return make, make(**arguments)


def _parse(spec: str) -> TaskSpec:
    target, _, function = spec.rpartition(":")  # the last colon: a Windows path has one after its drive letter
    if target and function.isidentifier():
        return TaskSpec(target, function)
    if spec in BUILTIN:
        raise UsageError(f"--task {spec}: built in, and found by itself in checkpoints of `rnnprune train {spec}`")
    plugins = {plugin.name: plugin.value for plugin in entry_points(group=PLUGINS)}
    if spec in plugins:
        return TaskSpec(*plugins[spec].split(":", 1))
    example = f"{spec}:make" if spec.endswith(".py") else "my_task.py:make"
    installed = f"; installed plugins: {', '.join(sorted(plugins))}" if plugins else ""
    raise UsageError(f"--task {spec}: expected FILE.py:FUNCTION or MODULE:FUNCTION, for example {example}{installed}")


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """The user's modules beside the task can be imported in here, as if the file were run as a script."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:  # the user's code may have taken it away itself
            sys.path.remove(entry)


def _import(spec: TaskSpec) -> ModuleType:
    importlib.invalidate_caches()  # the file may be younger than the import system's view of its folder
    if not spec.is_file:
        with user_code(spec.target, "the module cannot be imported"):
            return importlib.import_module(spec.target)
    path = Path(spec.target)
    if not path.is_file():
        raise UsageError(f"--task: there is no file {path} in {Path.cwd()}; name it relative to this folder or in full")
    name = f"_rnnprune_task_{path.stem}"  # a name of its own, or a file random.py would replace the real one
    found = importlib.util.spec_from_file_location(name, path.resolve())
    assert found is not None  # never for a name that ends in .py
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        with user_code(spec.target, "the file cannot be imported"):
            found.loader.exec_module(module)
    except UsageError:
        del sys.modules[name]
        raise
    return module


def _find_function(module: ModuleType, spec: TaskSpec) -> Callable[..., object]:
    make = getattr(module, spec.function, None)
    if callable(make):
        return cast(Callable[..., object], make)
    if make is not None:
        raise UsageError(
            f"{spec.target}: {spec.function} is {_described(make)}, not a function; name one that returns the task"
        )
    own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    near = get_close_matches(spec.function, own, n=1) or own[:1]
    hint = f"did you mean {spec.target}:{near[0]}?" if near else f"write `def {spec.function}(): ...` that returns it"
    raise UsageError(f"{spec.target}: there is no function {spec.function} in it; {hint}")


def _check_call(make: Callable[..., object], spec: TaskSpec, arguments: Mapping[str, object]) -> None:
    try:
        inspect.signature(make).bind(**arguments)
    except ValueError:
        return  # a builtin without a signature: the call itself will tell
    except TypeError as error:
        call = f"{spec.function}({', '.join(f'{name}=...' for name in arguments)})"
        remedy = f"write `def {spec.function}(data=None)`" if arguments else "give them defaults, or pass --data PATH"
        raise UsageError(f"{_line_of(make, spec)}: cannot be called as {call}: {error}; {remedy}") from error


def _problems(task: object) -> list[str]:
    """Every way in which an object falls short of the Task protocol; the protocol itself is the list."""
    problems = [f"no `{name}`" for name in Task.__annotations__ if not hasattr(task, name)]
    metric, goal = getattr(task, "metric", ""), getattr(task, "goal", "min")
    if not isinstance(metric, str):
        problems.append(f"`metric` is {_described(metric)}, not a name")
    if goal not in get_args(Goal):
        problems.append(f'`goal` is {goal!r}, not "min" or "max"')
    for name, method in vars(Task).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            problems += _method_problems(task, name, inspect.signature(method))
    return problems


def _method_problems(task: object, name: str, wanted: inspect.Signature) -> list[str]:
    parameters = list(wanted.parameters.values())[1:]  # without self
    call = f"{name}({', '.join(f'{p.name}=...' if p.kind is p.KEYWORD_ONLY else p.name for p in parameters)})"
    method: Any = getattr(task, name, None)
    if method is None:
        return [f"no `{call}`"]
    if not callable(method):
        return [f"`{name}` is {_described(method)}, not a method `{call}`"]
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    try:
        inspect.signature(method).bind(*positional, **keywords)
    except ValueError:
        return []  # no signature to be had
    except TypeError as error:
        return [f"`{name}` cannot be called as `{call}`: {error}"]
    return []


@contextmanager
def user_code(target: str, failed: str) -> Iterator[None]:
    """Around calls into the user's code: turn whatever the user's code raises into a UsageError that names the line."""
    try:
        yield
    except (Exception, SystemExit) as error:  # SystemExit: a script that ends itself when imported
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        where = _where_it_broke(error)
        remedy = _remedy(error) or f"mend {'that line' if where else 'the task'} and try again"
        raise UsageError(f"{where or target}: {failed}: {what}; {remedy}") from error


def _remedy(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name} into this environment, or put it beside the task's file"
    if isinstance(error, SystemExit):
        return 'put what ends the program under `if __name__ == "__main__":`'
    return None


def _where_it_broke(error: BaseException) -> str | None:
    """`file:line` of the innermost frame that is the user's own code, or None where there is none."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((f"{frame.filename}:{frame.lineno}" for frame in frames if _is_users(frame.filename)), None)


def _is_users(filename: str) -> bool:
    path = Path(filename)
    installed = any(part in _INSTALLED for part in path.parts)
    return not (installed or filename.startswith("<") or any(path.is_relative_to(root) for root in _NOT_THE_USERS))


def _line_of(make: Callable[..., object], spec: TaskSpec) -> str:
    """`file:line` where the user's function begins."""
    code = getattr(inspect.unwrap(make), "__code__", None)
    return spec.target if code is None else f"{spec.target}:{code.co_firstlineno}"


def _described(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
