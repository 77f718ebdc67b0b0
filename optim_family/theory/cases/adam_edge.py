"""Adam trains the same network at its own edge: λ₁(P^{-1/2} H P^{-1/2}) settles at about 38/η.

(2 + 2β₁)/((1 − β₁) η) with β₁ = 0.9 is the threshold for a constant P. As P follows the gradient, Adam may
cycle somewhat below it. The network of V10, η = 0.01, β₂ = 0.999, no decay. Checked: the median of the
ratio over the second half of 4000 steps.

Source: J. Cohen et al., "Adaptive gradient methods at the edge of stability" (2022).
"""

from functools import partial

from optim_family.theory.page import Paths, edge_case
from optim_family.theory.small_networks import Network
from optim_family.theory.trajectory import record_trajectory

LR, STEPS, EVERY = 1e-2, 4000, 80


def observe() -> Paths:
    """Run Adam, that is AdamW without decay."""
    network = Network.make(trained=True)
    record = partial(record_trajectory, network.loss, network.start(), STEPS, "adamw")
    return {"Adam": record(every=EVERY, measure_ratio=True, lr=LR, weight_decay=0.0)}


checks, draw = edge_case(low=0.8, high=1.1)
