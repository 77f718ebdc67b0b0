import io
import json
import statistics

import pytest

from optim_family.errors import UsageError
from optim_family.runs.run import column, read_run, views
from optim_family.study import cost
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec

SPEC = RunSpec(
    optimizer="gd",
    hyper={"lr": 0.1, "weight_decay": 5e-4, "momentum": 0.0},
    model="bn_mlp",
    limit=40,
    steps=10,
    every=3,
)
RMSPROP = {"lr": 0.02, "weight_decay": 0.05}


def changed(**changes):
    return SPEC.model_copy(update=changes)


@pytest.fixture
def unit_costs(monkeypatch):
    """Every gradient, product and evaluation takes a second, the start none."""
    monkeypatch.setattr(cost, "_seconds", lambda work: float(bool(work())))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: 0.0)


@pytest.mark.parametrize(
    ("spec", "steps", "readings", "records"),
    [
        (SPEC, 10, 5, 5),
        (changed(steps=12), 12, 5, 5),
        (changed(optimizer="rmsprop", hyper=RMSPROP), 10, 2 * 5, 5),
        (changed(views=("raw", "spherical")), 10, 5, 5),
        (changed(midpoint=True), 10, 2 * 5, 5),
        (changed(optimizer="rmsprop", hyper=RMSPROP, midpoint=True), 10, 4 * 5, 5),
    ],
)
def test_the_time_is_that_of_steps_readings_and_evaluations(unit_costs, spec, steps, readings, records):
    measured = cost.measure(spec)
    assert measured.seconds == steps + readings * cost.PRODUCTS + records
    assert measured.trained == 8192 and measured.mistake == ""


def test_a_reading_in_a_norm_takes_its_budget_and_has_no_midpoint(unit_costs):
    spec = changed(optimizer="signgd", hyper={"lr": 0.01, "weight_decay": 0.0}, midpoint=True)
    generalized = cost.measure(spec).seconds - cost.measure(changed(midpoint=True)).seconds
    assert generalized == 5 * 100
    assert cost.measure(spec.model_copy(update={"budget": 7})).seconds == 10 + 5 * (2 * cost.PRODUCTS + 7 + 1)


@pytest.mark.parametrize(("optimizer", "hyper", "views"), [("gd", SPEC.hyper, 1), ("rmsprop", RMSPROP, 2)])
def test_every_mini_batch_of_a_record_costs_a_quotient_in_every_view(unit_costs, optimizer, hyper, views):
    spec = changed(optimizer=optimizer, hyper=hyper, batch_size=20)
    more = cost.measure(spec.model_copy(update={"batch_sharpness": 5})).seconds - cost.measure(spec).seconds
    assert more == 5 * 5 * views


def test_more_images_cost_in_proportion_and_a_mini_batch_costs_itself(unit_costs, monkeypatch):
    monkeypatch.setattr(cost, "IMAGES", 20)
    record = cost.PRODUCTS + 1
    assert cost.measure(SPEC).seconds == 2 * (10 + 5 * record)
    assert cost.measure(changed(batch_size=20)).seconds == 10 + 2 * 5 * record
    assert cost.measure(changed(batch_size=20, batch_sharpness=3)).seconds == 10 + 5 * (2 * record + 3)
    assert cost.measure(changed(batch_sharpness=3)).seconds == 2 * (10 + 5 * (record + 1))


@pytest.mark.parametrize(
    ("changes", "images", "part"),
    [
        ({}, 200, 200),
        ({}, 50_000, 1000),
        ({"batch_size": 128}, 50_000, 896),
        ({"batch_size": 2500}, 50_000, 2500),
        ({"ghost_batch": 500}, 50_000, 1000),
    ],
)
def test_a_part_of_the_data_that_batches_divide(changes, images, part):
    assert cost.part_of(changed(**changes), images).limit == part


def test_time_and_memory_are_measured():
    measured = cost.measure(SPEC)
    assert measured.seconds > 0 and measured.bytes > 2**20


def test_a_reading_takes_about_as_many_products_as_estimated(tmp_path):
    products = []
    for spec in (SPEC, changed(optimizer="rmsprop", hyper=RMSPROP)):
        train(spec, tmp_path / spec.optimizer)
        run = read_run(tmp_path / spec.optimizer)
        products += [number for view in views(run) for number in column(run, f"{view}.products")]
    assert statistics.mean(products) == pytest.approx(cost.PRODUCTS, rel=1 / 3)


def asked(spec, monkeypatch, capsys):
    """Exit code and answer of `python -m optim_family.study.cost`, in this process."""
    monkeypatch.setattr("sys.stdin", io.StringIO(spec.model_dump_json()))
    code = cost.main()
    return code, capsys.readouterr()


def test_the_answer_of_another_process(monkeypatch, capsys):
    code, answer = asked(SPEC, monkeypatch, capsys)
    measured = cost.Cost(**json.loads(answer.out))
    assert (code, measured.trained, measured.mistake) == (0, 8192, "") and measured.seconds > 0


def test_a_run_that_cannot_be_is_an_error_here_and_a_mistake_from_another_process(monkeypatch, capsys):
    wrong = changed(ghost_batch=7)
    with pytest.raises(UsageError, match="a ghost batch of 7 does not divide"):
        cost.measure(wrong)
    code, answer = asked(wrong, monkeypatch, capsys)
    assert code == 2 and answer.err.startswith("a ghost batch of 7 does not divide")
