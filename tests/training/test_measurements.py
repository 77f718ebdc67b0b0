"""What is measured at a record: the views, the midpoint, the mini-batches, and how the Hessian multiplies."""

import signal
import statistics

import pytest
import torch

from optim_family.curvature.hessian import Hessian
from optim_family.errors import Stopped
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.sharpness.probe_set import NO_SAMPLE, ProbeSet
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import Trainer, train
from optim_family.training.progress import ProgressListener
from optim_family.training.stop_signal import StopSignal
from tests.helpers.training_runs import StopAfter, spec, untimed, weights_hash

BESIDE = {"midpoint": True, "batch_sharpness": 3}


class Notes(ProgressListener):
    def __init__(self):
        self.said = []

    def on_message(self, text):
        self.said.append(text)


class Ask(ProgressListener):
    """Asks a run to stop before this step."""

    def __init__(self, stop, at):
        self.stop, self.at = stop, at

    def on_step(self, step, loss):
        if step == self.at:
            self.stop.signal = signal.SIGTERM


def records(wanted, path, **options):
    train(wanted, path, **options)
    return read_run(path).records


def walked(wanted, path):
    """The run, and its weights before every step."""
    experiment, weights = build_experiment(wanted), []
    with RunStore.open(path, wanted.model_dump(mode="json")) as store:
        trainer = Trainer(experiment, path, store, ProgressListener(), StopSignal())
        while True:
            weights.append(experiment.objective.space.weights())
            if not trainer.step():
                break
    return experiment, weights, read_run(path).records


def test_a_record_says_how_the_hessian_multiplied_and_the_numbers_do_not_depend_on_it(tmp_path):
    values = {}
    for hvp in ("auto", "retained", "rebuilt"):
        run_records = records(spec(hvp=hvp, steps=2), tmp_path / hvp)
        assert {record["hvp"] for record in run_records} <= (
            {hvp} if hvp != "auto" else {"retained", "partly retained", "rebuilt"}
        )
        values[hvp] = [untimed(record["views"]) for record in run_records]
    assert values["auto"] == values["retained"] == values["rebuilt"]


def sampled_spec(**fields):
    return spec(limit=800, ghost_batch=100, reading="sampled", steps=20, every=2, views=("raw",), **fields)


def test_sampled_readings_of_a_run_are_recorded_audited_and_resumed_bitwise(tmp_path):
    whole = records(sampled_spec(), tmp_path / "whole")
    readings = [record["views"]["raw"] for record in whole]
    assert len(readings) == 11 and all(reading["sample_products"] for reading in readings)
    assert any(reading.get("method") == "sampled" and reading["bound"] is None for reading in readings)
    plain = records(sampled_spec().model_copy(update={"reading": "lanczos"}), tmp_path / "plain")
    for reading, record in zip(readings, plain, strict=True):
        assert reading["value"] == pytest.approx(record["views"]["raw"]["value"], rel=1e-2)
        assert "method" not in record["views"]["raw"]
    for at in (9, 40):  # at a step, and in the middle of a search
        path = tmp_path / f"resumed-{at}"
        with pytest.raises(Stopped):
            train(sampled_spec(), path, stop=StopAfter(at))
        resumed = records(sampled_spec(), path, resume=True)
        assert [untimed(r["views"]) for r in resumed] == [untimed(r["views"]) for r in whole]


def test_a_run_without_a_sample_says_so_once(tmp_path):
    few, many = Notes(), Notes()
    wanted = sampled_spec().model_copy(update={"limit": 200, "steps": 4})
    train(wanted, tmp_path / "few", listener=few)
    train(sampled_spec().model_copy(update={"steps": 4}), tmp_path / "many", listener=many)
    assert [text for text in few.said if "Lanczos" in text] == [NO_SAMPLE]
    assert NO_SAMPLE not in many.said


def test_graphs_that_do_not_fit_are_given_up_for_good_and_that_is_said_once(tmp_path, monkeypatch):
    tried = []

    def scarce(self, planned):
        if self.hvp == "retained":
            tried.append(self)
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Hessian, "_retain", scarce)
    notes = Notes()
    with pytest.raises(Stopped):
        train(spec(hvp="retained"), tmp_path / "run", listener=notes, stop=StopAfter(40))
    run_records = records(spec(hvp="retained"), tmp_path / "run", listener=notes, resume=True)
    assert {record["hvp"] for record in run_records} == {"rebuilt"}
    assert len(tried) == len([text for text in notes.said if "rebuilt for every product" in text]) == 1


@pytest.mark.parametrize(
    ("every", "centres"), [(3, {3: 2, 6: 5, 7: 6}), (1, {t: t - 1 for t in range(2, 8)})]
)
def test_the_midpoint_reading_is_that_of_three_successive_weights(tmp_path, every, centres):
    wanted = spec("rmsprop", every=every, steps=7, rtol=1e-7, precision="float64", midpoint=True)
    experiment, w, run_records = walked(wanted, tmp_path / "run")
    assert [r["step"] for r in run_records if "spherical-midpoint" in r["views"]] == list(centres)
    for step, centre in centres.items():
        (record,) = [record for record in run_records if record["step"] == step]
        point = (w[centre - 1] + 2 * w[centre] + w[centre + 1]) / 4
        experiment.objective.space.assign(point)
        cold = ProbeSet(["spherical"], rtol=1e-7, seed=9)(experiment.objective.hessian(), point)["spherical"]
        assert record["views"]["spherical-midpoint"]["value"] == pytest.approx(cold.value, rel=1e-6)
        assert record["views"]["spherical-midpoint"]["value"] != record["views"]["spherical"]["value"]
    assert run_records[-1]["views"]["spherical-preconditioned-midpoint"]["threshold"] is not None


def test_what_is_measured_beside_the_views_changes_nothing_else(tmp_path):
    plain = records(spec("sgd", batch_size=10), tmp_path / "plain")
    more = records(spec("sgd", batch_size=10, **BESIDE), tmp_path / "more")
    assert {name for record in more for name in record["views"]} == {
        *("spherical", "spherical-midpoint", "spherical-batch")
    }
    for record in more:
        record["views"] = {"spherical": record["views"]["spherical"]}
    assert [untimed(record) for record in more] == [untimed(record) for record in plain]
    assert weights_hash(tmp_path / "more") == weights_hash(tmp_path / "plain")


def test_a_resumed_run_has_the_same_readings_beside_its_views_to_the_last_bit(tmp_path):
    wanted = spec("sgd", batch_size=10, every=4, steps=9, **BESIDE)
    whole = records(wanted, tmp_path / "whole")
    for n in (2, 9, 17):  # within readings of both points
        with pytest.raises(Stopped):
            train(wanted, tmp_path / "pieces", resume=True, stop=StopAfter(n))
    for step in (6, 7, 9):  # between a record and the next, and among the three weights of a midpoint
        stop = StopSignal()
        with pytest.raises(Stopped):
            train(wanted, tmp_path / "pieces", resume=True, listener=Ask(stop, step), stop=stop)
    pieces = records(wanted, tmp_path / "pieces", resume=True)
    assert [untimed(record) for record in pieces] == [untimed(record) for record in whole]
    assert "spherical-midpoint" in whole[-1]["views"]


def test_the_batch_sharpness_is_the_mean_of_the_curvature_along_each_gradient(tmp_path):
    wanted = spec("sgd", batch_size=20, ghost_batch=10, steps=2, precision="float64", batch_sharpness=4)
    experiment, _, run_records = walked(wanted, tmp_path / "run")
    reading, space = run_records[-1]["views"]["spherical-batch"], experiment.objective.space
    quotients = []
    for batch in experiment.objective.sample_batches(4, wanted.seed * 1_000_003 + 2):
        loss = sum(chunk() for chunk in batch)
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, space.tensors)])
        product = Hessian(batch, space.tensors) @ gradient
        quotients.append(float(space.weights().square().sum() * (gradient @ product) / (gradient @ gradient)))
    assert reading["quotients"] == pytest.approx(quotients, rel=1e-9)
    assert reading["value"] == pytest.approx(statistics.fmean(quotients), rel=1e-9)
    assert reading["ratio"] == pytest.approx(reading["value"] / reading["threshold"])
    assert len(set(quotients)) == 4


def test_a_mini_batch_without_a_direction_leaves_a_gap_and_does_not_end_the_run(tmp_path, monkeypatch):
    def nowhere(*_, **__):
        raise FloatingPointError("the gradient of batch 0 is zero or not finite: it has no direction.")

    monkeypatch.setattr("optim_family.training.measurements.batch_sharpness", nowhere)
    status = train(spec(steps=2, batch_sharpness=1), tmp_path / "run")
    assert status == "done"
    assert [r["views"]["spherical-batch"] for r in read_run(tmp_path / "run").records] == [None, None]


def test_a_wish_to_stop_is_looked_at_before_every_step_and_every_product(tmp_path):
    class Counted(StopSignal):
        asked = 0

        def check(self):
            self.asked += 1

    stop, wanted = Counted(), spec(batch_size=10, **BESIDE)
    train(wanted, tmp_path / "run", stop=stop)
    views = [view for record in read_run(tmp_path / "run").records for view in record["views"].values()]
    assert stop.asked == wanted.steps + 1 + sum(view["products"] for view in views)
