"""The optimizers of the zoo, all on one network with the same rates to choose from."""

from dataclasses import dataclass, field
from typing import Any, final

RATES = (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
BEYOND = (3e-4, 1e-3, 3.0, 10.0)  # tried only where the best rate is an end of those above
SHRINK = 1e-3  # fraction of the weights that decay removes in a step, if there is decay
STEPS, EVERY, SEEDS = 600, 50, (0, 1, 2)
CHOICE_STEPS, CHOICE_SEED = 300, 3
DATA = {"name": "digits", "limit": 100, "ghost_batch": 25}
BATCH = 25
BATCHES = 20  # mini-batches of a reading along their gradients


@final
@dataclass(frozen=True)
class Member:
    """One row of the table.

    Attributes:
        optimizer: the name for `run --optimizer`.
        hyper: hyper-parameters that differ from the defaults, except learning rate and decay.
        lasting: 1 / (1 − β) if the decay passes through a momentum β, else 1.
        decay: whether there is weight decay; not if it would pass through a metric that is no multiple of I.
        batch: mini-batch size; None for the full batch.
    """

    optimizer: str
    hyper: dict[str, Any] = field(default_factory=dict)
    lasting: float = 1.0
    decay: bool = True
    batch: int | None = None

    def grid(self, lr: float) -> dict[str, Any]:
        """Its keys of a study's grid at one learning rate."""
        batch = {"batch_size": self.batch, "batch_sharpness": BATCHES} if self.batch else {}
        decay = float(f"{SHRINK / lr / self.lasting:.3g}") if self.decay else 0.0
        return {"optimizer": self.optimizer, **self.hyper, "lr": lr, "weight_decay": decay, **batch}


_EXACT = {"momentum": 0.0, "polar": "svd"}
MEMBERS = {
    "gd": Member("gd"),
    "gd, heavy ball 0.9": Member("gd", {"momentum": 0.9}),
    "sgd, batches of 25": Member("sgd", batch=BATCH),
    "sgd, batches of 25, momentum 0.9": Member("sgd", {"momentum": 0.9}, lasting=10.0, batch=BATCH),
    "rmsprop": Member("rmsprop"),
    "rmsprop, raw": Member("rmsprop", {"preconditioning": "raw"}),
    "rmsprop, scalar": Member("rmsprop", {"moment": "scalar"}),
    "adamw": Member("adamw"),
    "sam": Member("sam"),
    "signgd": Member("signgd"),
    "lion": Member("lion"),
    "muon, no momentum": Member("muon", _EXACT),
    "muon": Member("muon"),
    "torch:SGD, Nesterov 0.9": Member("torch:SGD", {"momentum": 0.9, "nesterov": True}, lasting=10.0),
    "torch:AdamW": Member("torch:AdamW"),
    "torch:RMSprop": Member("torch:RMSprop", decay=False),
    "torch:Adagrad": Member("torch:Adagrad", decay=False),
    "timm:lambw": Member("timm:lambw"),
    "timm:lion": Member("timm:lion"),
    "timm:muon": Member("timm:muon"),
    "timm:rmsproptfw": Member("timm:rmsproptfw"),
    "kron (plugin)": Member("kron"),
    "example-lion (plugin)": Member("example-lion"),
}
