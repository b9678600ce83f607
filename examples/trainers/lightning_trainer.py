"""`Pruner` as a Lightning callback: python examples/trainers/lightning_trainer.py; needs 'rnnprune[trainers]'."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from plain import ACCUMULATED, BATCHES, Tagger, made_up
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rnnprune import Pruner, plan_schedule


class Pruning(pl.Callback):
    """For a Trainer's list of callbacks; the masks are saved in its checkpoints and come back with them."""

    def __init__(self, target: float) -> None:
        self.target, self.saved = target, None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        schedule = plan_schedule("cubic", trainer.estimated_stepping_batches)  # optimizer steps
        self.pruner = Pruner(module, trainer.optimizers[0], schedule, target=self.target, saliency="fisher")
        if self.saved:
            self.pruner.load_state_dict(self.saved)

    def on_train_batch_end(self, *_: Any) -> None:
        self.pruner.step()  # does nothing where a batch was only accumulated

    def state_dict(self) -> dict[str, Any]:
        return self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = state_dict


class LitTagger(pl.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self.model(batch[0]).flatten(0, 1), batch[1].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def train(model: nn.Module, batches: list, pruning: Pruning, epochs: int = 1, **resume: Any) -> pl.Trainer:
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[pruning], accumulate_grad_batches=ACCUMULATED, logger=False)
    trainer.fit(LitTagger(model), DataLoader(batches, batch_size=None), **resume)
    return trainer


if __name__ == "__main__":
    train(Tagger(), made_up(BATCHES), pruning := Pruning(target=0.9))
    print(f"{pruning.pruner.sparsity:.2%} zeros after {pruning.pruner.step_count} optimizer steps")
