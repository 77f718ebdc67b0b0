"""The loop of timm's training script, and three lines that record it.

timm's wheel does not contain its training script. This script builds the same loop: model, optimizer with
parameter groups, loss, scheduler and meters come from timm's factories, in the order of timm's script. The
numbers 1, 2 and 3 mark the lines of the recorder.
"""

import sys
from argparse import Namespace

import torch
from sklearn.datasets import load_digits
from timm import create_model, utils
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.utils.data import DataLoader, TensorDataset

from optim_family import Recorder  # 1

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
args = Namespace(model="test_resnet", opt="adamw", lr=5e-3, weight_decay=0.05, batch_size=50, smoothing=0.1)

utils.random_seed(0)
bunch = load_digits()
images = torch.tensor(bunch.images[:200, None] / 16, dtype=torch.float32).repeat_interleave(2, 2)
data = TensorDataset(images.repeat_interleave(2, 3), torch.tensor(bunch.target[:200]))
loader = DataLoader(data, args.batch_size, shuffle=True, drop_last=True)
epochs = -(-steps // len(loader))

model = create_model(args.model, in_chans=1, num_classes=10)
optimizer = create_optimizer_v2(model, opt=args.opt, lr=args.lr, weight_decay=args.weight_decay)
train_loss_fn = LabelSmoothingCrossEntropy(smoothing=args.smoothing)
scheduler, epochs = create_scheduler_v2(
    optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=1, warmup_lr=1e-4, min_lr=1e-4
)
chunks = list(DataLoader(data, args.batch_size))
recorder = Recorder(model, optimizer, train_loss_fn, chunks, every=100, out="runs/digits-timm")  # 2

for epoch in range(epochs):
    model.train()
    losses = utils.AverageMeter()
    for batch in loader:
        if recorder.steps == steps:
            break
        loss = train_loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.update(loss.item(), len(batch[1]))
        recorder.step(loss=loss.item())  # 3
    scheduler.step(epoch + 1, losses.avg)
recorder.close()
