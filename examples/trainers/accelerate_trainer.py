"""`Pruner` beside Hugging Face accelerate. Needs accelerate: pip install 'rnnprune[trainers]'.

python examples/trainers/accelerate_trainer.py      # made-up data, a few seconds, ends at 90 %
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from plain import ACCUMULATED, BATCHES, Tagger, made_up
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rnnprune import Pruner, plan_schedule


def train(tagger: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Pruner:
    accelerator = Accelerator(gradient_accumulation_steps=ACCUMULATED)
    optimizer = torch.optim.Adam(tagger.parameters(), 1e-2)
    model, optimizer, loader = accelerator.prepare(tagger, optimizer, DataLoader(batches, batch_size=None))
    schedule = plan_schedule("cubic", len(loader) // ACCUMULATED)  # optimizer steps of this process
    both = accelerator.unwrap_model(model), optimizer.optimizer  # unwrapped
    pruner = Pruner(*both, schedule, target=0.9, saliency="fisher")
    for frames, tags in loader:
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(frames).flatten(0, 1), tags.flatten())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()  # a real one only when enough batches have been accumulated
            pruner.step()  # does nothing unless it was
            optimizer.zero_grad()
    return pruner


if __name__ == "__main__":
    pruner = train(Tagger(), made_up(BATCHES))
    print(f"{pruner.sparsity:.2%} zeros after {pruner.step_count} optimizer steps")
