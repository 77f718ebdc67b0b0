"""What is predicted of a run, beside closed forms, and of which runs nothing is."""

import math

import pytest

from optim_family.errors import UsageError
from optim_family.figures.overlays import (
    NAMES,
    first_index_at_edge,
    mean_loss,
    parse_overlays,
    steepest_drift,
    threshold_is_two_over_effective_lr,
)
from optim_family.runs.run import first_fit_index
from tests.helpers.fake_runs import holding, make_run

SHRINK = 0.2 * 0.005  # of make_run()


def test_overlays_are_named_in_a_list():
    assert parse_overlays(None) == parse_overlays("all") == NAMES
    assert parse_overlays("none") == ()
    assert parse_overlays("tau, edge") == ("tau", "edge")
    with pytest.raises(UsageError, match=r"there is no overlay 'drifd'; did you mean 'drift'\?"):
        parse_overlays("edge,drifd")


def test_the_edge_is_the_first_record_that_is_fitted_and_at_the_threshold():
    run = make_run()
    index = first_index_at_edge(run)
    assert index >= first_fit_index(run) and run.records[index]["views"]["spherical"]["ratio"] >= 1
    between = run.records[first_fit_index(run) : index]
    assert all(record["views"]["spherical"]["ratio"] < 1 for record in between)


def test_a_run_below_its_threshold_or_never_fitted_has_no_edge():
    calm, unfitted = make_run(), make_run()
    for low, slow in zip(calm.records, unfitted.records, strict=True):
        low["views"]["spherical"]["ratio"] = 0.99
        slow["train_accuracy"] = 0.99
    assert first_index_at_edge(calm) is None and steepest_drift(calm).size == mean_loss(calm).size == 0
    assert first_index_at_edge(unfitted) is None and steepest_drift(unfitted).size == 0


def test_the_drift_starts_at_the_threshold_and_falls_by_twice_the_decay_a_step():
    run = make_run()
    (first, start), *_, (last, end) = steepest_drift(run).T
    record = run.records[first_index_at_edge(run)]
    assert (first, last) == (record["step"], run.records[-1]["step"])
    assert start == pytest.approx(2 / record["effective_lr"], rel=1e-12)
    assert math.log(end / start) == pytest.approx(-2 * SHRINK * (last - first), rel=1e-9)


def test_the_mean_loss_is_that_of_the_largest_oscillation():
    run = make_run()
    expected = {r["step"]: SHRINK / (2 * r["effective_lr"]) for r in run.records[first_index_at_edge(run) :]}
    assert dict(mean_loss(run).T) == pytest.approx(expected, rel=1e-9)


def test_the_mean_loss_follows_the_learning_rate_in_force():
    run = make_run()
    before = mean_loss(run)[1, -1]
    run.records[-1]["lr"] /= 2
    assert mean_loss(holding(run, run.records))[1, -1] == pytest.approx(before / 2)


@pytest.mark.parametrize(
    "run",
    [
        make_run("rmsprop"),
        make_run(hyper={"weight_decay": 0.0}),
        make_run(batch_size=10),
        make_run(records=0),
    ],
    ids=["rmsprop", "no decay", "mini-batches", "no records"],
)
def test_of_other_runs_nothing_is_predicted(run):
    assert steepest_drift(run).size == mean_loss(run).size == 0


def test_with_momentum_the_threshold_is_another_and_nothing_is_predicted():
    run = make_run()
    for record in run.records:
        record["views"]["spherical"]["threshold"] *= 1.9
    assert not threshold_is_two_over_effective_lr(run, "spherical")
    assert steepest_drift(run).size == 0
    assert threshold_is_two_over_effective_lr(make_run("rmsprop"), "spherical-preconditioned")
