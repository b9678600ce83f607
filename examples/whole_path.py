"""Dense model, 90 % beside a dense control, sparse file, its figures on the fastest engine: for several seeds.

    python -m examples.tagging.run            # seeds 0, 1 and 2, or those that are named: docs/results/tag.json
    python -m examples.text.run lm --speed    # times the pruned model of seed 0 as well; a quiet machine, one thread
    python -m examples.pages                  # the tables of the pages, from all that lies in docs/results

Run from the top of the repository. Every command is the one that a user would type; what it answered is kept beside
what it made, and a command whose answer is kept is not run again. For another recipe remove the run folders first, for
another dense model its checkpoint as well.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples import compare
from examples.commands import kept
from rnnprune.formats.run_folder import sha256_of
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.source import DataOptions
from rnnprune.workflows.subject import TaskChoice, find_task, open_subject

RESULTS = Path("docs/results")


@dataclass(frozen=True)
class Example:
    """One task: where its data comes from, and the flags of its commands; `{seed}` in them is the seed.

    name: of the raw figures, docs/results/NAME.json. checkpoint: the dense model. run: the run folders without their
    `-seedN`. recipe, train: flags of `finetune`, and of `train` where the dense model is our own. spec: a third party's
    task, FILE.py:FUNCTION; its data lies beside the checkpoint. unlabelled: the flags of `finetune` where it learns
    from the dense model alone, which is then its own control; the task only scores. prepare: fetches what is not there.
    requests: what is timed.
    """

    name: str
    checkpoint: str
    run: str
    recipe: str
    prepare: Callable[[], None]
    train: str = ""
    spec: str | None = None
    unlabelled: str = ""
    requests: Callable[[Any], compare.Requests] | None = None

    @property
    def data(self) -> Path | None:
        return Path(self.checkpoint).parent if self.spec else None

    @property
    def task(self) -> list[str]:
        """The flags that name a third party's task."""
        return ["--task", self.spec, "--data", str(self.data)] if self.spec else []

    def load_task(self, run: Path) -> Task:
        """The third party's, else the built-in one that the run names."""
        return find_task(open_subject(run), TaskChoice(self.spec, DataOptions(data=self.data)), "evaluate")


def train(example: Example, seed: int) -> dict[str, Any]:
    """The dense model, and what `rnnprune train` said of it."""
    checkpoint = Path(example.checkpoint.format(seed=seed))
    words = ["train", *shlex.split(example.train.format(seed=seed)), "--out", str(checkpoint)]
    answer = checkpoint.with_name(f"{checkpoint.name}.json")
    if not checkpoint.exists():
        answer.unlink(missing_ok=True)  # of a model that was removed
    told = kept(answer, *words)
    return {"command": shlex.join(["rnnprune", *words]), **{key: told[key] for key in told if key != "schema"}}


def one_seed(example: Example, seed: int) -> dict[str, Any]:
    """Fine-tune to 90 % beside a control, export, score the sparse file and hold its answers against the dense ones."""
    run, checkpoint = Path(f"{example.run}-seed{seed}"), example.checkpoint.format(seed=seed)
    recipe = ["--target", "0.9", *shlex.split(example.recipe), *([] if example.unlabelled else ["--control"])]
    settings = [*recipe, "--seed", str(seed), "--out", str(run)]
    finetune = ["finetune", checkpoint, *(shlex.split(example.unlabelled) or example.task), *settings]
    told = kept(run / "finetune.json", *finetune)
    manifest = json.loads((run / "rnnprune.json").read_text(encoding="utf-8"))
    if manifest["checkpoint"]["sha256"] != sha256_of(Path(checkpoint)):
        sys.exit(f"{run} was pruned from another {checkpoint}; remove {run} and run this again")
    file = kept(run / "export.json", "export", str(run), "--format", "csr")
    scored = kept(run / "evaluate.json", "evaluate", file["file"], *example.task, "--threads", "1")
    figures = {label: splits["test"] for label, splits in manifest["figures"].items()}
    if example.unlabelled:  # what the run tells of itself is how far it is from the dense model
        dense, sparse = (
            kept(run / f"evaluate-{label}.json", "evaluate", model, *example.task, "--threads", "1")["figures"]
            for label, model in (("dense", checkpoint), ("sparse", str(run)))
        )
        figures = {"dense": dense, "dense_control": dense, "sparse": sparse}
    return {
        "seed": seed,
        "command": shlex.join(["rnnprune", *finetune]),
        "metric": scored["metric"],
        "goal": scored["goal"],
        "sparsity": told["sparsity"]["achieved"],
        "figures": {**figures, "file": scored["figures"]},
        "engine": scored["engine"],
        "bytes": {"dense": (run / "model.safetensors").stat().st_size, "sparse": file["bytes"]},
        "steps": told["steps"],
        "seconds": told["seconds"],
        "machine": manifest["machine"],
        "versions": manifest["versions"],
        "date": time.strftime("%Y-%m-%d", time.localtime((run / "rnnprune.json").stat().st_mtime)),
        "max_difference": compare.largest_difference(run, example.load_task(run)),
    }


def measure(example: Example, seeds: list[int], *, speed: bool = False) -> Path:
    """All of an example: data, dense model, every seed, and on request the speed; returns the file of raw figures."""
    example.prepare()
    dense = [train(example, seed) for seed in seeds if example.train]  # one for all seeds, or one each
    raw: dict[str, Any] = {"train": dense[0]} if dense else {}
    raw["rows"] = [one_seed(example, seed) for seed in seeds]
    run = Path(f"{example.run}-seed0")
    timed = run / "speed.json"
    if speed and example.requests:
        told = compare.speed(run, example.load_task(run), example.requests)
        timed.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if timed.is_file():
        raw["speed"] = json.loads(timed.read_text(encoding="utf-8"))
    path = RESULTS / f"{example.name}.json"
    path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    return path


def main(examples: Mapping[str, Example]) -> None:
    """The command line of a run.py: which of its examples, where it has several, and for which seeds."""
    parser = argparse.ArgumentParser()
    if len(examples) > 1:
        parser.add_argument("name", choices=examples)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--speed", action="store_true", help="time the pruned model of seed 0, dense and sparse")
    arguments = parser.parse_args()
    example = examples[arguments.name] if len(examples) > 1 else next(iter(examples.values()))
    if arguments.speed and not example.requests:
        parser.error(f"--speed: nothing is timed for {example.name}")
    print(f"{measure(example, arguments.seeds, speed=arguments.speed)}; next: python -m examples.pages")
