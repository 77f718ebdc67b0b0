"""A small transformer with LayerNorm: which weights are scale-invariant, and a recorded run of the Trainer.

Every block takes LayerNorm(x) of the residual stream x. Embeddings, attention and MLP add to x. If all
weights that add to x are scaled by the same factor, LayerNorm(x) and therefore the loss do not change; with a
vanishing eps this is exact for a factor of 2. All other weights change the loss: queries and keys (softmax),
the first layer of the MLP (GELU), γ, β and the read-out.
"""

import sys
import tempfile

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2ForSequenceClassification, Trainer, TrainingArguments

from optim_family.callbacks.transformers import RecorderCallback
from optim_family.networks import scale_invariance

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
WRITERS = ("wte", "wpe", "attn.c_proj", "mlp.c_proj")


class Digits(Dataset):
    """Digits as 16 tokens, the means of 2×2 pixels in 17 grey values."""

    def __init__(self, count):
        bunch = load_digits()
        means = torch.tensor(bunch.images[:count]).unfold(1, 2, 2).unfold(2, 2, 2).mean((-1, -2))
        self.tokens, self.labels = means.round().long().flatten(1), torch.tensor(bunch.target[:count])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"input_ids": self.tokens[i], "labels": self.labels[i]}


def small(**settings):
    """Two blocks of width 32, without dropout."""
    torch.manual_seed(0)
    config = GPT2Config(
        **{"vocab_size": 18, "pad_token_id": 17, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2},
        **{"num_labels": 10, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
        **{"use_cache": False, "tie_word_embeddings": False},
        **{"bos_token_id": None, "eos_token_id": None},
        **settings,
    )
    return GPT2ForSequenceClassification(config)


digits = Digits(100)
batch = {"input_ids": digits.tokens, "labels": digits.labels}

exact = small(layer_norm_epsilon=torch.finfo(torch.float64).tiny).double()
everything = dict(exact.named_parameters())
writers = {name: p for name, p in everything.items() if any(word in name for word in WRITERS)}
for title, named in (("all weights", everything), ("weights that add to the residual stream", writers)):
    print(f"{title}: {scale_invariance.check(lambda: exact(**batch).loss, named).summary}")

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=50,
        learning_rate=3e-3,
        weight_decay=0.1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    recorder = RecorderCallback([batch], every=50, out="runs/transformer")
    Trainer(small(), arguments, train_dataset=digits, callbacks=[recorder]).train()
