"""Repeats a run to the last bit, and asks the flow on the way.

S is read at midpoints (w_{t−1} + 2w_t + w_{t+1})/4, where the oscillation is taken out, and at some of them
∇ log λ₁ is made of third derivatives, in float64. Its part along Γ cannot be told apart in a large network:
removed are the weights' own direction and the eigenvectors of the k largest eigenvalues, so that q is an
upper estimate. How much of ∇ log λ₁ lies where the curvature is small, Gauss quadrature says. The theory
supposes that λ₁ is simple; λ₂/λ₁ says how nearly it is.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from torch import Tensor

from optim_family.analysis.predictions import modulation_period
from optim_family.curvature.lanczos import top_eigenpairs
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.curvature.spectral_density import spectral_measure
from optim_family.errors import UsageError
from optim_family.figures.overlays import edge
from optim_family.runs.run import Run, column, series
from optim_family.sharpness.probe import Probe, Reading
from optim_family.space import ParameterSpace
from optim_family.theory.run_drift import CUTS, Checkpoint, Drift, window
from optim_family.theory.third_derivative import third_derivative
from optim_family.training.experiment import Experiment, build_experiment
from optim_family.training.objective import Objective
from optim_family.training.progress import ProgressListener
from optim_family.training.spec import RunSpec

READINGS: Final = 5  # in a modulation period
# Relative errors of the k eigenvalues, and of λ₁, whose eigenvector has to be good.
ROUGH, FINE, MAX_PRODUCTS = 1e-2, 1e-9, 1000
NODES: Final = 200  # of the quadrature


def follow(run: Run, *, checkpoints: int = 8, k: int = 40, listener: ProgressListener | None = None) -> Drift:
    """Repeat a run, and ask the flow at evenly spaced steps past the edge of stability.

    Args:
        run: gradient descent with weight decay, full batch, on an exactly scale-invariant loss.
        checkpoints: how often the flow is asked.
        k: how many of the largest eigenvalues leave the gradient.
        listener: told of every step.

    Raises:
        UsageError: the flow is not made for this run, it is too short, or it cannot be repeated here.
    """
    with full_precision(), deterministic():
        experiment = build_experiment(RunSpec.model_validate(run.spec))
        shrink = _shrink(run, experiment)
        begin, margin, steps = _edge(run), window(shrink) + 1, experiment.spec.steps
        if steps - begin < 2 * margin + checkpoints:
            raise UsageError(
                f"{run.path} ends {steps - begin} steps after it came to the edge of stability; the slope of "
                f"log S needs {2 * margin + checkpoints}; make the run longer"
            )
        asked = {round(t) for t in np.linspace(begin + margin, steps - margin, checkpoints)}
        every = max(1, round(modulation_period(shrink) / READINGS))
        read = set(range(begin, steps, every))
        listener = listener or ProgressListener()
        listener.on_start(steps, 0)
        try:
            return _measured(run, experiment, read, asked, k, listener)
        finally:
            listener.on_end()


def _measured(
    run: Run, experiment: Experiment, read: set[int], asked: set[int], k: int, listener: ProgressListener
) -> Drift:
    objective = experiment.objective
    double = build_experiment(experiment.spec.model_copy(update={"precision": "float64"})).objective
    probe, losses, found = Probe("spherical", rtol=experiment.spec.rtol), [], []
    readings: dict[int, Reading] = {}
    for step, (loss, middle) in enumerate(steps_of(run, experiment)):
        losses.append(loss)
        if step in read:
            with visiting(objective.space, middle):
                readings[step] = probe(objective.hessian(), middle, experiment.geometry())
            seen = {"spherical": {"ratio": readings[step].ratio}}
            listener.on_record({"step": step, "train_loss": loss, "views": seen})
        if step in asked:
            with visiting(double.space, middle):
                found.append(checkpoint(double, step, k))
        listener.on_step(step + 1, loss)
    return Drift(
        shrink=_shrink(run, experiment),
        steps=torch.tensor(list(readings)),
        sharpness=torch.tensor([reading.value for reading in readings.values()]),
        threshold=torch.tensor([reading.threshold or math.nan for reading in readings.values()]),
        loss=torch.tensor(losses),
        checkpoints=tuple(found),
    )


def steps_of(run: Run, experiment: Experiment) -> Iterator[tuple[float, Tensor]]:
    """Take the steps of a run again: for each t the loss at w_t, and the midpoint around it, [d].

    Raises:
        UsageError: the weights are not those of the run's log, to the last bit.
    """
    log = dict(zip(column(run, "step"), column(run, "weight_norm"), strict=True))
    before = now = experiment.objective.space.weights()
    for step in range(experiment.spec.steps):
        if log.get(step, norm := float(torch.linalg.vector_norm(now))) != norm:
            raise UsageError(
                f"{run.path} cannot be repeated here: at step {step} ‖w‖ is {norm!r}, not {log[step]!r}; "
                "make the run on this machine, with these versions and as many threads"
            )
        loss = float(experiment.objective.gradient(step))
        experiment.optimizer_step()
        after = experiment.objective.space.weights()
        yield loss, (before + 2 * now + after) / 4
        before, now = now, after


@contextmanager
def visiting(space: ParameterSpace, place: Tensor) -> Iterator[None]:
    """Inside, the weights are at another place [d]; then where they were, to the last bit."""
    home = space.weights()
    space.assign(place.to(home))
    try:
        yield
    finally:
        space.assign(home)


def checkpoint(objective: Objective, step: int, k: int) -> Checkpoint:
    """What the flow sees at the present weights, k eigenvectors of the Hessian removed."""
    w = objective.space.weights()
    rho, hessian = torch.linalg.vector_norm(w), objective.hessian()
    noise = torch.randn(w.shape, generator=torch.Generator().manual_seed(step), dtype=w.dtype).to(w.device)
    limits = {"max_products": MAX_PRODUCTS, "basis_size": 3 * k + 4}
    many = top_eigenpairs(hessian, noise, k=min(k, len(w) - 2), rtol=ROUGH, **limits)
    one = top_eigenpairs(hessian, many.vectors[0] + noise / noise.norm() / 2, rtol=FINE, **limits)
    gradient = rho * third_derivative(objective, one.vectors[0]) / one.values[0]
    gradient -= w * (w @ gradient) / rho**2
    removed = (many.vectors @ gradient).square().cumsum(0)  #                                     [k]
    nodes, weights = spectral_measure(hessian, gradient, steps=NODES)
    return Checkpoint(
        step,
        sharpness=float(rho**2) * one.values[0],
        second=many.values[1] / many.values[0],
        last=many.values[-1] / many.values[0],
        q=tuple((gradient @ gradient - removed).tolist()),
        below=tuple(float(weights[abs(nodes) <= cut * one.values[0]].sum()) for cut in CUTS),
    )


def _shrink(run: Run, experiment: Experiment) -> float:
    """ηλ, if this is the run that the flow of gradient descent speaks of."""
    geometry, lr = experiment.geometry(), experiment.optimizer.values["lr"]
    shrink = geometry.decay.shrink if geometry.decay else 0.0
    plain = geometry.metric.scale == 1 and math.isclose(geometry.threshold, 2 * (1 - shrink) / lr)
    if not (plain and shrink > 0 and experiment.verdict.invariant and experiment.spec.batch_size is None):
        raise UsageError(
            f"the flow is that of gradient descent with weight decay, without momentum, full batch, on an "
            f"exactly scale-invariant loss; {run.path} is another run"
        )
    return shrink


def _edge(run: Run) -> int:
    """The first recorded step at 100 % training accuracy and at or above the threshold."""
    if (index := edge(run)) is None:
        raise UsageError(
            f"{run.path} never comes to its edge of stability with 100 % training accuracy, where the flow "
            "begins; make the run longer"
        )
    return max(1, int(series(run, "step")[index]))
