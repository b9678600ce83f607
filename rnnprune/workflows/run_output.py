"""What a pruning run writes: the pruned model that describes itself, the manifest, the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from rnnprune.formats.atomic import write_atomic
from rnnprune.formats.container import write_dense
from rnnprune.formats.run_folder import CARD, MODEL, publish, sha256_of, write_manifest
from rnnprune.kernels.csr import nonzero_count
from rnnprune.kernels.views import view_key
from rnnprune.pruning.selection import Choice
from rnnprune.workflows.machine import describe_machine, versions
from rnnprune.workflows.subject import Subject


@dataclass(frozen=True)
class Story:
    """How the weights came about: `settings` is the whole resolved request, `fingerprint` all of it that decides the
    result.

    `metric`, `figures` and `fingerprint` are empty, and `steps` 0, where nothing was trained.
    """

    subject: Subject
    task: str | None
    pruning: Mapping[str, Any]
    settings: Mapping[str, Any]
    metric: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


class Written(NamedTuple):
    """Shares of exact zeros: over all pruned tensors together, and each on its own."""

    achieved: float
    per_tensor: dict[str, float]


def write_run(run: Path, stage: Path, model: nn.Module, choices: Sequence[Choice], story: Story) -> Written:
    """Write a live model's run folder; see `write_tensors`."""
    tensors, aliases = state_of(model)
    return write_tensors(run, stage, tensors, aliases, choices, story)


def write_tensors(
    run: Path,
    stage: Path,
    tensors: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    choices: Sequence[Choice],
    story: Story,
) -> Written:
    """Write model.safetensors, README.md and rnnprune.json to the stage, then make it the run."""
    written = measure(tensors, aliases, choices)
    checkpoint = {"path": str(story.subject.path), "sha256": sha256_of(story.subject.checkpoint.path)}
    choice_of = {choice.name: {"pruned": choice.pruned, "reason": choice.reason} for choice in choices}
    write_dense(stage / MODEL, tensors, aliases, {**story.subject.task_metadata, "choices": choice_of})
    stacks = [f"{stack.prefix or 'top level'}: {stack.label}" for stack in story.subject.stacks]
    manifest = {
        "schema": 1,
        "checkpoint": checkpoint,
        "task": story.task,
        "architecture": stacks,
        "pruning": story.pruning,
        "settings": story.settings,
        "fingerprint": story.fingerprint,
        "sparsity": {
            "target": story.pruning["target"],
            "achieved": written.achieved,
            "per_tensor": written.per_tensor,
        },
        "metric": story.metric,
        "figures": story.figures,
        "steps": story.steps,
        "seconds": story.seconds,
        "machine": describe_machine(),
        "versions": versions(),
        "files": {MODEL: {"sha256": sha256_of(stage / MODEL), "bytes": (stage / MODEL).stat().st_size}},
    }
    write_atomic(stage / CARD, _card(story, written, stacks).encode())
    write_manifest(stage, manifest)
    publish(run)
    return written


def measure(tensors: Mapping[str, Tensor], aliases: Mapping[str, str], choices: Sequence[Choice]) -> Written:
    """The sparsity that the tensors really have, tied ones counted once."""
    pruned = dict.fromkeys(aliases.get(choice.name, choice.name) for choice in choices if choice.pruned)
    zeros = {name: tensors[name].numel() - nonzero_count(tensors[name]) for name in pruned}
    total = sum(tensors[name].numel() for name in pruned)
    per_tensor = {name: zeros[name] / max(tensors[name].numel(), 1) for name in pruned}
    return Written(sum(zeros.values()) / max(total, 1), per_tensor)


def state_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's state dict without repetition, and the further names of its tied tensors."""
    first_name: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        first = name if (key := view_key(tensor)) is None else first_name.setdefault(key, name)
        if first != name:
            aliases[name] = first
        else:
            tensors[name] = tensor.detach().cpu().contiguous()
    return tensors, aliases


def _card(story: Story, written: Written, stacks: Sequence[str]) -> str:
    pruning, metric = story.pruning, story.metric
    lines = [
        f"# {story.subject.path.name}, {'pruned' if written.per_tensor else 'trained on'}",
        "",
        f"Made by rnnprune from `{story.subject.path.name}`"
        + (f", task `{story.task}`." if story.task else ", in one shot and without training."),
        "",
        *(f"- {stack}" for stack in stacks),
    ]
    if not written.per_tensor:
        return "\n".join([*lines, "- nothing is pruned: a dense control"]) + "\n"
    columns = pruning["selection"]["n_of_m"]
    lines += [
        f"- sparsity of the pruned tensors: {written.achieved:.4f} (target {pruning['target']:g} for "
        + ("the whole model" if pruning["selection"]["scope"] == "model" else f"each {pruning['selection']['scope']}")
        + "".join(f", {target:g} for {pattern}" for pattern, target in pruning["selection"]["target_of"])
        + (", at most {} of every {} columns of a row".format(*columns) if columns else "")
        + ")",
        f"- schedule: {pruning['schedule']['name']}; saliency: {pruning['saliency']}",
    ]
    if metric:
        better = "lower" if metric["goal"] == "min" else "higher"
        lines += [
            "",
            f"| {metric['name']} on the test split ({better} is better) | |",
            "|---|---|",
            f"| the checkpoint, before | {metric['dense']:.4g} |",
            *(
                [f"| dense, trained on | {metric['dense_control']:.4g} |"]
                if metric["dense_control"] is not None
                else []
            ),
            f"| sparse | {metric['sparse']:.4g} |",
        ]
    lines += ["", "| pruned tensor | sparsity |", "|---|---|"]
    lines += [f"| `{name}` | {sparsity:.4f} |" for name, sparsity in written.per_tensor.items()]
    return "\n".join(lines) + "\n"
