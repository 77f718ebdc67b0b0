"""Repeat a run bitwise, and compare it with the flow.

S is measured at midpoints (w_{t−1} + 2w_t + w_{t+1})/4, which have no oscillation, and at some of them
∇ log λ₁ is computed from third derivatives, in float64. The tangent space of Γ has no sharp border in a large
network: the direction of the weights and the eigenvectors of the k largest eigenvalues are removed, so that q
is an upper estimate. Gauss quadrature gives the part of ∇ log λ₁ where the curvature is small. The theory
assumes that λ₁ is simple; λ₂/λ₁ shows how well that holds.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import numpy as np
import torch
from torch import Tensor

from optim_family.analysis.predictions import modulation_period
from optim_family.curvature.lanczos import top_eigenpairs
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.curvature.spectral_density import spectral_measure
from optim_family.errors import UsageError
from optim_family.figures.overlays import first_index_at_edge
from optim_family.runs.run import Run, column, series
from optim_family.sharpness.midpoint import midpoint, moved_to
from optim_family.sharpness.probe import Probe, Reading
from optim_family.theory.run_drift import CUTS, Checkpoint, RunDrift, window
from optim_family.theory.third_derivative import third_derivative
from optim_family.training.experiment import Experiment, build_experiment
from optim_family.training.objective import Objective
from optim_family.training.progress import ProgressListener
from optim_family.training.spec import RunSpec

MEASUREMENTS: Final = 5  # per modulation period
# Relative errors of the k eigenvalues, and of λ₁, whose eigenvector must be accurate.
ROUGH, FINE, MAX_PRODUCTS = 1e-2, 1e-9, 1000
NODES: Final = 200  # of the quadrature


def follow(
    run: Run, *, checkpoints: int = 8, k: int = 40, listener: ProgressListener | None = None
) -> RunDrift:
    """Repeat a run, and measure ∇ log λ₁ at evenly spaced steps past the edge of stability.

    Args:
        run: gradient descent with weight decay, full batch, on an exactly scale-invariant loss.
        checkpoints: how often ∇ log λ₁ is measured.
        k: how many top eigenvectors are removed from the gradient.
        listener: receives every step.

    Raises:
        UsageError: the flow does not describe this run, or it is too short or not repeatable here.
    """
    listener = listener or ProgressListener()
    with full_precision(), deterministic(), ExitStack() as stack:
        experiment = build_experiment(RunSpec.model_validate(run.spec))
        eta_lambda, objective = _eta_lambda(run, experiment), experiment.objective
        sharpness_steps, checkpoint_steps = _schedule(run, eta_lambda, checkpoints)
        double = build_experiment(experiment.spec.model_copy(update={"precision": "float64"})).objective
        probe, readings = Probe("spherical", rtol=experiment.spec.rtol), dict[int, Reading]()
        losses, points = [], []
        listener.on_start(experiment.spec.steps, 0)
        stack.callback(listener.on_end)
        for step, (loss, middle) in enumerate(steps_of(run, experiment)):
            losses.append(loss)
            if step in sharpness_steps:
                with moved_to(objective.space, middle):
                    readings[step] = probe(objective.hessian(), middle, experiment.geometry())
                views = {"spherical": {"ratio": readings[step].ratio}}
                listener.on_record({"step": step, "train_loss": loss, "views": views})
            if step in checkpoint_steps:
                with moved_to(double.space, middle):
                    points.append(checkpoint(double, step, k))
            listener.on_step(step + 1, loss)
    return RunDrift(
        eta_lambda=eta_lambda,
        steps=torch.tensor(list(readings)),
        sharpness=torch.tensor([reading.value for reading in readings.values()]),
        threshold=torch.tensor([reading.threshold or math.nan for reading in readings.values()]),
        loss=torch.tensor(losses),
        checkpoints=tuple(points),
    )


def _schedule(run: Run, eta_lambda: float, checkpoints: int) -> tuple[range, set[int]]:
    """The steps at which S is measured, and those with ∇ log λ₁, from the edge of stability on."""
    if (index := first_index_at_edge(run)) is None:
        raise UsageError(
            f"{run.path} never reaches its edge of stability with 100 % training accuracy, where the flow "
            "begins; make the run longer"
        )
    begin, margin, steps = max(1, int(series(run, "step")[index])), window(eta_lambda) + 1, run.spec["steps"]
    if steps - begin < 2 * margin + checkpoints:
        raise UsageError(
            f"{run.path} ends {steps - begin} steps after it reaches the edge of stability; the slope of "
            f"log S needs {2 * margin + checkpoints}; make the run longer"
        )
    every = max(1, round(modulation_period(eta_lambda) / MEASUREMENTS))
    checkpoint_steps = {round(t) for t in np.linspace(begin + margin, steps - margin, checkpoints)}
    return range(begin, steps, every), checkpoint_steps


def steps_of(run: Run, experiment: Experiment) -> Iterator[tuple[float, Tensor]]:
    """Repeat the steps of a run: for each t the loss at w_t, and the midpoint around it, [d].

    Raises:
        UsageError: the norm of the weights differs from that in the run's log.
    """
    log = dict(zip(column(run, "step"), column(run, "weight_norm"), strict=True))
    before = now = experiment.objective.space.weights()
    for step in range(experiment.spec.steps):
        if log.get(step, norm := float(torch.linalg.vector_norm(now))) != norm:
            raise UsageError(
                f"{run.path} cannot be repeated here: at step {step} ‖w‖ is {norm!r}, not {log[step]!r}; "
                "make the run on this machine, with these versions and as many threads"
            )
        loss = experiment.objective.gradient(step)
        experiment.optimizer_step(step, loss)
        after = experiment.objective.space.weights()
        yield float(loss), midpoint(before, now, after)
        before, now = now, after


def checkpoint(objective: Objective, step: int, k: int) -> Checkpoint:
    """Sharpness and ∇ log λ₁ at the present weights, k eigenvectors of the Hessian removed."""
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


def _eta_lambda(run: Run, experiment: Experiment) -> float:
    """ηλ, if the flow of gradient descent describes this run."""
    geometry, lr = experiment.geometry(), experiment.optimizer.values["lr"]
    eta_lambda = geometry.decay.shrink if geometry.decay else 0.0
    plain = geometry.metric.scale == 1 and math.isclose(geometry.threshold, 2 * (1 - eta_lambda) / lr)
    if not (plain and eta_lambda > 0 and experiment.verdict.invariant and experiment.spec.batch_size is None):
        raise UsageError(
            f"the flow is that of gradient descent with weight decay, without momentum, full batch, on an "
            f"exactly scale-invariant loss; {run.path} is a run of another kind"
        )
    return eta_lambda
