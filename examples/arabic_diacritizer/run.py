"""arabic-diacritizer from nothing: fetched, scored as it came, 90 % of it pruned, exported, run sparse.

python -m examples.arabic_diacritizer.run 0     # one seed; docs/results/arabic_diacritizer.md shows the figures
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import rnnprune
from examples import packages, whole_path
from rnnprune.tasks.loader import load_task

CACHE = Path(".cache/arabic_diacritizer")
CHECKPOINT = CACHE / "bilstm_best.pt"
FILES = {
    "diacritize/assets/bilstm_best.pt": "51bfd0d3498adfc54393580ddc9d7ff8deaaab866d7d5d28c81eaec7ddc9e97f",
    "diacritize/assets/word_cache.json.gz": "752723c1b97c7111bbf6093c8789bfce1cc6f87f2e3de044fba87c6adfecf15f",
}
SPEC = "examples/arabic_diacritizer/diacritics_task.py:make"
TASK = ["--task", SPEC, "--data", str(CACHE)]
RECIPE = ["--steps", "300", "--lr", "0.001", "--control-lr", "0.0001", "--threads", "1"]
SCHEDULE = ["--scope", "model", "--end", "0.4", "--frequency", "10"]


def run(seed: int) -> dict[str, Any]:
    out = CACHE / f"diacritizer-{seed}-s90"
    told = whole_path.one_seed(seed, str(CHECKPOINT), [*RECIPE, *SCHEDULE], out, TASK)
    return told | {"max_difference": largest_difference(out)}


@torch.no_grad()
def largest_difference(run: Path) -> float:
    """Between the logits of the pruned dense model and those of the sparsified one, on 50 test sentences."""
    task: Any = load_task(SPEC, CACHE)
    dense = task.build_model().eval()
    dense.load_state_dict(load_file(run / "model.safetensors"))
    sparse = rnnprune.sparsify(task.build_model(), run / "model.csr.safetensors")
    sentences = [torch.tensor([sentence.characters]) for sentence in task.splits["test"][:50]]
    return max(float((dense(sentence) - sparse(sentence)).abs().max()) for sentence in sentences)


if __name__ == "__main__":
    packages.wheel("arabic-diacritizer==1.0.0", FILES, CACHE)
    whole_path.all_seeds(Path("docs/results/arabic_diacritizer.json"), run)
