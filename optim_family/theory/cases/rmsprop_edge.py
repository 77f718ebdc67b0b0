"""RMSprop trains a network with BN at its own edge: λ₁(P^{-1/2} H P^{-1/2}) settles at 2/η.

A tanh network 10-20-1 with BN, 40 examples, ½ mean (f − y)², full batch, all weights trained; raw RMSprop
without decay, η = 0.001, β₂ = 0.99 and 0.999. Checked: the median of the ratio over the
second half of 4000 steps.

Source: J. Cohen et al., "Adaptive gradient methods at the edge of stability" (2022).
"""

from functools import partial
from typing import Any

from optim_family.theory.page import Paths, edge_case
from optim_family.theory.small_networks import Network
from optim_family.theory.trajectory import record_trajectory

LR, BETAS, STEPS, EVERY = 1e-3, (0.99, 0.999), 4000, 80


def observe() -> Paths:
    """Run RMSprop with both β₂."""
    network = Network.make(trained=True)
    hyper: dict[str, Any] = {"lr": LR, "weight_decay": 0.0, "preconditioning": "raw"}
    record = partial(record_trajectory, network.loss, network.start(), STEPS, "rmsprop", **hyper)
    return {f"β₂ = {beta:g}": record(every=EVERY, measure_ratio=True, beta2=beta) for beta in BETAS}


checks, draw = edge_case(low=0.9, high=1.15)
