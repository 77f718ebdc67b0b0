"""A run is repeated bitwise, and the checkpoints agree with dense algebra."""

from dataclasses import replace

import pytest
import torch

from optim_family.curvature.precision import full_precision
from optim_family.errors import UsageError
from optim_family.runs.run import read_run
from optim_family.sharpness.midpoint import moved_to
from optim_family.theory import run_replay
from optim_family.theory.run_drift import CUTS, window
from optim_family.theory.run_replay import checkpoint, follow, steps_of
from optim_family.theory.third_derivative import third_derivative
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec
from tests.helpers.fake_runs import holding

GD = {"lr": 0.5, "weight_decay": 0.04, "momentum": 0.0}
SPEC = RunSpec(optimizer="gd", hyper=GD, model="bn_mlp", limit=30, steps=200, every=10)
ETA_LAMBDA, K = 0.02, 4
SMALL = """
summary = "small"
builtin = "bn_cnn"
kwargs = { width = 2 }
[adapt]
readout_norm = 10.0
freeze = ["fc.*"]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(SPEC, folder)
    return read_run(folder)


@pytest.fixture(scope="module")
def drift(run):
    return follow(run, checkpoints=2, k=K)


def weights_of(experiment, steps):
    """w_0, …, w_t by plain steps."""
    weights = [experiment.objective.space.weights()]
    for step in range(steps):
        experiment.optimizer_step(step, experiment.objective.gradient(step))
        weights.append(experiment.objective.space.weights())
    return weights


def test_the_repetition_visits_the_midpoints_of_the_run(run):
    with full_precision():
        again = list(steps_of(run, build_experiment(SPEC)))
        w = weights_of(build_experiment(SPEC), 4)
    assert len(again) == SPEC.steps
    for t in (1, 2, 3):
        assert torch.equal(again[t][1], (w[t - 1] + 2 * w[t] + w[t + 1]) / 4)
    assert [again[r["step"]][0] for r in run.records[:-1]] == pytest.approx(
        [r["train_loss"] for r in run.records[:-1]], rel=1e-5
    )


def test_a_log_with_other_weights_is_refused(run):
    records = [dict(record) for record in run.records]
    records[3]["weight_norm"] *= 1 + 1e-6
    with pytest.raises(UsageError, match=r"cannot be repeated here: at step 30 .* on this machine"):
        list(steps_of(holding(run, records), build_experiment(SPEC)))


def test_weights_return_bitwise_from_a_midpoint():
    space = build_experiment(SPEC).objective.space
    home = space.weights()
    with moved_to(space, (2 * home).double()):
        assert torch.equal(space.weights(), 2 * home)
    assert torch.equal(space.weights(), home)


def test_it_measures_the_sharpness_past_the_edge_and_q_at_even_steps(run, drift):
    first = next(
        r["step"] for r in run.records if r["train_accuracy"] == 1 and r["views"]["spherical"]["ratio"] >= 1
    )
    assert int(drift.steps[0]) == first
    assert [at.step for at in drift.checkpoints] == [
        first + window(ETA_LAMBDA) + 1,
        200 - window(ETA_LAMBDA) - 1,
    ]
    assert len(drift.loss) == SPEC.steps and drift.eta_lambda == pytest.approx(ETA_LAMBDA)
    assert float((drift.sharpness / drift.threshold).median()) > 0.8


def test_measurements_do_not_change_the_run(run, drift):
    assert drift.loss.tolist() == [
        pytest.approx(loss, rel=1e-7) for loss, _ in steps_of(run, build_experiment(SPEC))
    ]


def test_a_checkpoint_is_what_dense_algebra_says(tmp_path, monkeypatch):
    monkeypatch.setattr(run_replay, "NODES", 400)  # as many as there are weights, and a few
    (tmp_path / "small.toml").write_text(SMALL)
    spec = SPEC.model_copy(update={"model": str(tmp_path / "small.toml"), "precision": "float64"})
    objective = build_experiment(spec).objective
    w = objective.space.weights()
    at = checkpoint(objective, 7, K)
    values, vectors = torch.linalg.eigh(objective.hessian().dense())
    values, top = values.flip(0) / values[-1], vectors.T.flip(0)[:K]
    curvature = float(top[0] @ (objective.hessian() @ top[0]))
    assert at.sharpness == pytest.approx(curvature * float(w @ w), rel=1e-8)
    assert (at.second, at.last) == pytest.approx((float(values[1]), float(values[K - 1])), rel=0.01)
    gradient = w.norm() * third_derivative(objective, top[0]) / curvature
    assert float(gradient @ w / w.norm()) == pytest.approx(-2, rel=1e-9)
    tangent = gradient + 2 * w / w.norm()
    left = [float(tangent @ tangent - (top[: k + 1] @ tangent).square().sum()) for k in range(K)]
    assert at.q[0] == pytest.approx(left[0], rel=1e-3)
    assert list(at.q) == pytest.approx(left, rel=0.05)  # λ₂, …, λ_k are drift to a hundredth
    parts = (vectors.T @ tangent).square().flip(0)
    below = [float(parts[values.abs() <= cut].sum()) for cut in CUTS]
    assert below[0] > 2 * below[-1]
    assert list(at.below) == pytest.approx(below, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hyper": {**GD, "momentum": 0.5}}, "without momentum"),
        ({"hyper": {**GD, "weight_decay": 0.0}}, "with weight decay"),
        ({"batch_size": 15}, "full batch"),
        ({"norm": "none"}, "scale-invariant"),
    ],
)
def test_other_runs_are_refused(run, change, message):
    with pytest.raises(UsageError, match=message):
        follow(replace(run, spec=run.spec | change))


def test_short_runs_and_calm_ones_are_refused(run):
    short = replace(run, spec=run.spec | {"steps": 60})
    with pytest.raises(UsageError, match="make the run longer"):
        follow(short)
    calm = [r | {"train_accuracy": 0.9} for r in run.records]
    with pytest.raises(UsageError, match="never reaches its edge"):
        follow(holding(run, calm))
