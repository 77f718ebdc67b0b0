"""A plain PyTorch training loop on digits, and three lines that record it."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from optim_family import Recorder  # 1

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300

torch.manual_seed(0)
bunch = load_digits()
x, y = torch.tensor(bunch.images[:, None] / 16, dtype=torch.float32)[:200], torch.tensor(bunch.target)[:200]
convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2)]
model = nn.Sequential(
    *(convolutions[0], nn.BatchNorm2d(8), nn.ReLU()),
    *(convolutions[1], nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(16 * 3 * 3, 10)),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
loss_fn = nn.functional.cross_entropy
recorder = Recorder(model, optimizer, loss_fn, [(x, y)], every=50, out="runs/digits-torch")  # 2

for _ in range(steps):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    recorder.step(loss=loss.item())  # 3
recorder.close()
