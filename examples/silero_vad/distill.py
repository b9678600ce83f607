"""silero-vad without a label: 90 % of its LSTM cell pruned while it learns to answer as before, on frames alone.

python -m examples.silero_vad.distill       # docs/results/distill.md shows the figures, scored with labels
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from examples.silero_vad import run
from examples.silero_vad.prompts import read_prompts
from examples.whole_path import main

INPUTS = run.CACHE / "unlabelled.npy"
EXCERPTS, TIME, SNRS = 2, 64, (-5, 25)  # of every training prompt; frames; dB


def prepare() -> None:
    """Excerpts of the prompts that vad_task.py trains on, in noise, float32 [excerpts, T, 576]; nothing else."""
    run.prepare()
    if INPUTS.is_file():
        return
    random = np.random.default_rng(0)
    clips = read_prompts(run.CACHE)["train"] * EXCERPTS
    np.save(INPUTS, np.stack([clip.cut(TIME, random).in_noise(random.uniform(*SNRS), random) for clip in clips]))


EXAMPLES = {
    "distill": replace(
        run.EXAMPLES["silero_vad"],
        name="distill",
        run=".cache/silero_vad/distilled-s90",
        prepare=prepare,
        unlabelled=f"--task distill --inputs {INPUTS} --model examples/silero_vad/vad_task.py:Detector",
        recipe="--scope tensor --steps 400 --lr 0.001 --end 0.4 --frequency 10 --batch-size 16 --threads 1",
    )
}

if __name__ == "__main__":
    main(EXAMPLES)
