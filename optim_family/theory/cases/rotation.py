"""In equilibrium the weights turn by an angle that learning rate, decay and momentum determine alone.

A scale-invariant loss has gradients at right angles to the weights, of size 1/‖w‖. Random ones lengthen the
weights, decay shortens them, and in equilibrium the angle between w_t and w_{t+1} has the root mean square

    SGD                  √(2ηλ)
    SGD with momentum    √(2ηλ/(1 + β))
    AdamW                √(2ηλ (1 − β₁)/(1 + β₁))

up to a relative O(√(ηλ)). Random Gaussian gradients at right angles to w in ℝ⁴⁰⁰⁰, ηλ = 2e-4, β = 0.9.

Source: A. Kosson, B. Messmer, M. Jaggi, "Rotational equilibrium: how weight decay balances learning across
neural networks" (2024).
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.theory.page import EXPECTED, line
from optim_family.theory.verify import NumericCheck

DIM, ETA_LAMBDA, BETA, STEPS, TOLERANCE = 4000, 2e-4, 0.9, 6000, 0.02
# The registered name, η, the hyper-parameters, and the angle.
OPTIMIZERS: Final[dict[str, tuple[str, float, dict[str, Any], float]]] = {
    "SGD": ("sgd", 0.1, {}, math.sqrt(2 * ETA_LAMBDA)),
    "SGD, momentum": ("sgd", 0.1, {"momentum": BETA}, math.sqrt(2 * ETA_LAMBDA / (1 + BETA))),
    "AdamW": (
        "adamw",
        0.01,
        {"beta1": BETA, "beta2": 0.99, "eps": 0.0},
        math.sqrt(2 * ETA_LAMBDA * (1 - BETA) / (1 + BETA)),
    ),
}


def observe() -> dict[str, Tensor]:
    """The angle of every step, [t]."""
    return {name: _angles(*row[:3]) for name, row in OPTIMIZERS.items()}


def _angles(name: str, lr: float, hyper: dict[str, Any]) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(DIM, generator=generator, dtype=torch.float64)
    beta = hyper.get("momentum", 0.0)
    w *= _length(name, lr, beta) / w.norm()  # close to the equilibrium
    w.requires_grad_()
    optimizer = registry.load(name)([w], lr=lr, weight_decay=ETA_LAMBDA / lr, **hyper)
    angles = torch.zeros(STEPS, dtype=torch.float64)
    for step in range(STEPS):
        before = w.detach().clone()
        g = torch.randn(DIM, generator=generator, dtype=torch.float64) / math.sqrt(DIM)
        w.grad = (g - (g @ before) / (before @ before) * before) / before.norm()
        optimizer.step()
        cosine = float(w.detach() @ before / (w.detach().norm() * before.norm()))
        angles[step] = math.acos(min(1.0, cosine))
    return angles


def _length(name: str, lr: float, beta: float) -> float:
    """‖w‖ in equilibrium: ‖w‖⁴ = η/(2λ(1 − β)) for SGD, ‖w‖² = ηd/(2λ) for Adam."""
    decay = ETA_LAMBDA / lr
    if name == "adamw":
        return math.sqrt(lr * DIM / (2 * decay))
    return float((lr / (2 * decay * (1 - beta))) ** 0.25)


def checks(evidence: dict[str, Tensor]) -> Iterator[NumericCheck]:
    """The root mean square over the second half."""
    for name, angles in evidence.items():
        late = float(angles[len(angles) // 2 :].square().mean().sqrt())
        yield NumericCheck.equal(f"{name}: angle of a step", OPTIMIZERS[name][3], late, within=TOLERANCE)


def draw(ax: Axes, evidence: dict[str, Tensor]) -> None:
    """The angle over its prediction."""
    for index, (name, angles) in enumerate(evidence.items()):
        blocks = angles[: len(angles) // 100 * 100].view(-1, 100).square().mean(1).sqrt()
        ax.plot(torch.arange(len(blocks)) * 100, blocks / OPTIMIZERS[name][3], label=name, **line(index))
    ax.axhline(1, label="equilibrium", **EXPECTED)
    ax.set(xlabel="step", ylabel="angle of a step / prediction")
