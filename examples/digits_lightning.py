"""Lightning's training loop on digits, with a callback that records it."""

import sys

import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optim_family.callbacks.lightning import RecorderCallback

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300


class Digits(LightningModule):
    """A small network with BatchNorm, and AdamW."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 10))

    def forward(self, x):
        """[n, 64] → [n, 10]."""
        return self.net(x)

    def training_step(self, batch, index):
        """The mean loss of a batch."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        """One optimizer for all weights."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)


torch.manual_seed(0)
bunch = load_digits()
x, y = torch.tensor(bunch.data[:200] / 16, dtype=torch.float32), torch.tensor(bunch.target[:200])
trainer = Trainer(
    max_steps=steps,
    callbacks=[
        RecorderCallback(nn.functional.cross_entropy, [(x, y)], every=50, out="runs/digits-lightning")
    ],
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Digits(), DataLoader(TensorDataset(x, y), batch_size=200))
