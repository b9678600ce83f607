"""silero-vad from nothing: fetched, scored as it came, 90 % of its LSTM cell pruned, exported, run sparse.

python -m examples.silero_vad.run       # three seeds; docs/results/silero_vad.md shows the figures
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import rnnprune
from examples import packages, whole_path
from rnnprune.tasks.loader import load_task

CACHE = Path(".cache/silero_vad")
CHECKPOINT = CACHE / "silero_vad_16k.safetensors"
WEIGHTS = {
    "silero_vad/data/silero_vad_16k.safetensors": "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1"
}
SOUNDS = ("asterisk-core-sounds-en-wav=1.6.1-1", "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d")
TEXTS = ("asterisk-core-sounds-en=1.6.1-1", "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50")
SPEC = "examples/silero_vad/vad_task.py:make"
TASK = ["--task", SPEC, "--data", str(CACHE)]
RECIPE = ["--steps", "200", "--lr", "0.001", "--control-lr", "0.0001", "--threads", "1"]
SCHEDULE = ["--end", "0.4", "--frequency", "10"]


def prepare() -> None:
    packages.wheel("silero-vad==6.2.3", WEIGHTS, CACHE)
    packages.debian(*SOUNDS, CACHE)
    packages.debian(*TEXTS, CACHE)


def run(seed: int) -> dict[str, Any]:
    out = CACHE / f"vad-{seed}-s90"
    told = whole_path.one_seed(seed, str(CHECKPOINT), [*RECIPE, *SCHEDULE], out, TASK)
    return told | {"max_difference": largest_difference(out)}


@torch.no_grad()
def largest_difference(run: Path) -> float:
    """Between the logits of the pruned dense model and those of the sparsified one, on every test clip."""
    task: Any = load_task(SPEC, CACHE)
    dense = task.build_model().eval()
    dense.load_state_dict(load_file(run / "model.safetensors"))
    sparse = rnnprune.sparsify(task.build_model(), run / "model.csr.safetensors")
    clips = task.splits["test"]
    return max(float(abs(task.scores(dense, clip) - task.scores(sparse, clip)).max()) for clip in clips)


if __name__ == "__main__":
    prepare()
    whole_path.all_seeds(Path("docs/results/silero_vad.json"), run)
