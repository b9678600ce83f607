"""`Pruner` in a plain loop, with gradient accumulation, clipping and mixed precision.

python examples/trainers/plain.py      # made-up data, a few seconds, ends at 90 %
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnprune import Pruner, plan_schedule

BATCHES, ACCUMULATED = 200, 2


class Tagger(nn.Module):
    """Frames [N, T, 8] -> logits [N, T, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 32, batch_first=True)
        self.output = nn.Linear(32, 2)

    def forward(self, frames: Tensor) -> Tensor:
        return self.output(self.rnn(frames)[0])


def made_up(batches: int) -> list[tuple[Tensor, Tensor]]:
    """Is the sum of the first channel, up to each frame, above zero?"""
    frames = torch.randn(batches, 16, 20, 8, generator=torch.Generator().manual_seed(0))
    return [(part, (part[:, :, 0].cumsum(dim=1) > 0).long()) for part in frames]


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Pruner:
    device = "cuda" if torch.cuda.is_available() else "cpu"  # the model goes there before the Pruner is built
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    scaler = torch.amp.GradScaler(device)
    steps = len(batches) // ACCUMULATED  # optimizer steps, not batches
    pruner = Pruner(model, optimizer, plan_schedule("cubic", steps), target=0.9, saliency="fisher")
    for i, (frames, tags) in enumerate(batches, start=1):
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            logits = model(frames.to(device))
            loss = F.cross_entropy(logits.flatten(0, 1), tags.to(device).flatten()) / ACCUMULATED
        scaler.scale(loss).backward()  # gradients of dropped weights are masked as they arrive
        if i % ACCUMULATED:
            continue
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        pruner.step()  # does nothing after a step that the scaler skipped
        optimizer.zero_grad()
    return pruner


if __name__ == "__main__":
    pruner = train(Tagger(), made_up(BATCHES))
    print(f"{pruner.sparsity:.2%} zeros after {pruner.step_count} optimizer steps")
