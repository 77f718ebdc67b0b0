"""The optimizers of the zoo: all with the same learning rates to choose from, the same decay and seeds."""

from dataclasses import dataclass, field
from typing import Any, final

RATES = (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
SHRINK = 1e-3  # fraction of the weights that decay removes in a step, if there is decay
STEPS, EVERY, SEEDS = 600, 50, (0, 1, 2)
TUNING_STEPS, TUNING_SEED = 200, 3
SUBJECT = {"model": "bn_cnn", "data": "digits", "limit": 100, "rtol": 1e-2}


@final
@dataclass(frozen=True)
class Member:
    """One row of the table.

    Attributes:
        optimizer: the name for `run --optimizer`.
        hyper: hyper-parameters that differ from the defaults, except learning rate and decay.
        lasting: 1 / (1 − β) if the decay passes through a momentum β, else 1.
        decay: whether there is weight decay; not if it would pass through a metric that is no multiple of I.
        batch: mini-batch size, also of the normalisation statistics.
        metric: whether the optimizer has a metric.
    """

    optimizer: str
    hyper: dict[str, Any] = field(default_factory=dict)
    lasting: float = 1.0
    decay: bool = True
    batch: int | None = None
    metric: bool = True

    def values(self, lr: float) -> dict[str, Any]:
        """All hyper-parameters that are not left at their defaults."""
        return {**self.hyper, "lr": lr, "weight_decay": SHRINK / lr / self.lasting if self.decay else 0.0}


MEMBERS = {
    "gd": Member("gd"),
    "gd, heavy ball 0.9": Member("gd", {"momentum": 0.9}),
    "sgd, batches of 50": Member("sgd", batch=50),
    "rmsprop": Member("rmsprop"),
    "rmsprop, raw": Member("rmsprop", {"preconditioning": "raw"}),
    "adamw": Member("adamw"),
    "torch:SGD, Nesterov 0.9": Member("torch:SGD", {"momentum": 0.9, "nesterov": True}, lasting=10.0),
    "torch:AdamW": Member("torch:AdamW"),
    "torch:RMSprop": Member("torch:RMSprop", decay=False),
    "torch:Adagrad": Member("torch:Adagrad", decay=False),
    "timm:lambw": Member("timm:lambw"),
    "timm:lion": Member("timm:lion", metric=False),
    "timm:muon": Member("timm:muon", metric=False),
    "kron (plugin)": Member("kron"),
    "timm:rmsproptfw": Member("timm:rmsproptfw"),
    "lion (plugin)": Member("lion", metric=False),
}
