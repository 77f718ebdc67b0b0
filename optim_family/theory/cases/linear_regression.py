"""Linear regression with BN: the sharpness falls to that of the minimum-norm interpolator, in closed form.

    f(x) = σ_y ⟨x − μ, w⟩ / √(wᵀΣw) + μ_y,   L = ½ mean (f − y)²

With w̃ = σ_y w / √(wᵀΣw), interpolators have S = ‖w̃‖² λ₁(Σ − Σw̃w̃ᵀΣ/(w̃ᵀΣw̃)), whose second factor is the
same for all of them: S = S_min (1 + tan² φ) at the angle φ to the one of least norm. Along the
sharpness-reduction flow tan φ(τ) = tan φ₀ e^{−τ}, so that gradient descent with weight decay, started at
its edge, has

    S(t) = S_min (1 + tan² φ₀ e^{−2ηλt}).

n = 6 examples in d = 12 dimensions, η = 0.1, λ = 0.002, tan φ₀ = 2.57, ηλt in [0, 4]. S is measured at
the midpoints (w_{t−1} + 2w_t + w_{t+1})/4, which remove the oscillation: at the weights themselves it is too
high and too low in turn.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, for the setting and the flow; the closed form is our own calculation.
"""

from collections.abc import Iterator

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.figures.curves import log_axis
from optim_family.theory.flow_comparison import Setting
from optim_family.theory.page import EXPECTED, dots, line
from optim_family.theory.toys import Regression
from optim_family.theory.trajectory import midpoints, sharpness_along
from optim_family.theory.verify import NumericCheck

LR, ETA_LAMBDA, TAU, TOLERANCE = 0.1, 2e-4, 4.0, 0.01
EVERY = 250  # steps between two measurements
CLOSED_FORM, MIDPOINTS = "S_min (1 + tan² φ₀ exp(−2τ))", "gradient descent, at midpoints"


def observe() -> tuple[Tensor, dict[str, Tensor]]:
    """Run gradient descent from its edge; return ηλt, [m], and S there by label, [m] each."""
    toy = Regression.make()
    steps = round(TAU / ETA_LAMBDA)
    path = Setting(toy, LR, ETA_LAMBDA, TAU).descend(steps + 1)
    at = torch.arange(EVERY, steps + 1, EVERY)
    return path.tau[at], {
        CLOSED_FORM: toy.sharpness_at(path.tau[at]),
        MIDPOINTS: sharpness_along(toy.loss, midpoints(path.weights)[at - 1]),
        "at the weights, even steps": sharpness_along(toy.loss, path.weights[at]),
        "at the weights, odd steps": sharpness_along(toy.loss, path.weights[at + 1]),
    }


def checks(evidence: tuple[Tensor, dict[str, Tensor]]) -> Iterator[NumericCheck]:
    """S at three times, and the largest error over all times."""
    times, sharpness = evidence
    expected, measured = sharpness[CLOSED_FORM], sharpness[MIDPOINTS]
    for tau in (1.0, 2.0, 4.0):
        at = int((times - tau).abs().argmin())
        pair = float(expected[at]), float(measured[at])
        yield NumericCheck.equal(f"S at τ = {tau:g}", *pair, within=TOLERANCE)
    quantity = f"S: largest relative error at {len(times)} times"
    yield NumericCheck.vanishes(quantity, measured / expected - 1, within=TOLERANCE)


def draw(ax: Axes, evidence: tuple[Tensor, dict[str, Tensor]]) -> None:
    """The closed form, and S at midpoints and at weights."""
    times, sharpness = evidence
    styles = EXPECTED, dots(0), line(1), line(2)
    for (label, series), style in zip(sharpness.items(), styles, strict=True):
        ax.plot(times, series, label=label, **style)
    ax.set(xlabel="τ = ηλt", ylabel="spherical sharpness S")
    log_axis(ax, [sharpness[CLOSED_FORM].tolist()])
