"""A small GPT in plain torch on the text of Python's own help: its critical sharpness against the rate.

The attention is torch's fused kernel, which has no second derivative. The recorder measures along updates by
forward passes only: at a critical sharpness of 2/η an update leaves the loss as it is.
"""

import json
import sys
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional

from optim_family import Recorder

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
WIDTH, HEADS, LENGTH, BATCH, RATE = 64, 4, 64, 16, 3e-3


class Block(nn.Module):
    """Causal attention and an MLP, each behind a LayerNorm."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        """[n, length, width] → the same."""
        heads = self.qkv(self.norms[0](x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class GPT(nn.Module):
    """Two blocks on bytes."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(128, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 128, bias=False)

    def forward(self, x):
        """Bytes [n, length] → logits [n, length, 128]."""
        hidden = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(hidden)))


def loss_fn(logits, y):
    """Cross-entropy of the next byte."""
    return functional.cross_entropy(logits.flatten(0, 1), y.flatten())


def batch(generator):
    """Random windows of the text, and the same one byte later."""
    starts = torch.randint(len(text) - LENGTH - 1, (BATCH,), generator=generator).tolist()
    windows = torch.stack([text[start : start + LENGTH + 1] for start in starts])
    return windows[:, :-1], windows[:, 1:]


torch.manual_seed(0)
text = torch.tensor(list("".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")))
model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
fixed = [batch(torch.Generator().manual_seed(seed)) for seed in range(1000, 1004)]
options = {"views": [], "along": True, "every": 10, "out": "runs/gpt-critical"}
with Recorder(model, optimizer, loss_fn, fixed, **options) as recorder:
    for step in range(steps):
        x, y = batch(torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
        recorder.step()

for line in Path("runs/gpt-critical/metrics.jsonl").read_text().splitlines():
    record = json.loads(line)
    if (along := record.get("along")) and along["critical"]:
        print(
            f"step {record['step']:4}  loss {record['train_loss']:.3f}  critical sharpness "
            f"{along['critical']:8.1f}  over 2/η {along['critical_ratio']:.2f}"
        )
