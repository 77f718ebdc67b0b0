"""A run: what it records, how it ends, and that an interruption leaves no trace in the numbers."""

import itertools
import math

import pytest
import torch

from optim_family import registry
from optim_family.errors import BusyError, CorruptError, PluginError, Stopped, UsageError
from optim_family.optimizers.gd import GD
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.training import checkpoint
from optim_family.training.experiment import build_experiment
from optim_family.training.loop import train
from optim_family.training.progress import ProgressListener
from tests.helpers.training_runs import HYPER, StopAfter, spec, untimed, weights_hash


def test_a_run_records_what_it_promises(tmp_path):
    status = train(spec("rmsprop"), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert status == run.status["status"] == "done"
    assert [r["step"] for r in run.records] == [0, 2, 4, 6, 8]
    for record in run.records:
        assert set(record) == {
            *("step", "tau", "train_loss", "peak_loss", "train_accuracy", "test_accuracy", "test_loss"),
            *("weight_norm", "gradient_norm", "effective_lr", "lr", "hvp", "views", "elapsed"),
        }
        assert record["tau"] == pytest.approx(0.02 * 0.05 * record["step"])
        ell = 0.02 / ((1 - 0.02 * 0.05) * record["weight_norm"] ** 2)
        assert record["effective_lr"] == pytest.approx(ell)
        assert set(record["views"]) == {"spherical", "spherical-preconditioned"}
        own = record["views"]["spherical-preconditioned"]
        assert own["ratio"] == pytest.approx(own["value"] / own["threshold"])
        assert own["threshold"] == pytest.approx(2 / ell * (1 - 0.001) / (1 - 0.001), rel=1e-6)
        assert record["views"]["spherical"]["threshold"] is None
        assert own["products"] > 0 and own["converged"]
    assert run.provenance["model"]["invariant"] and run.provenance["data"]["train"] == 40


def test_the_spherical_threshold_of_gradient_descent_is_two_over_the_effective_rate(tmp_path):
    train(spec(hyper={"lr": 0.3, "weight_decay": 1e-2}), tmp_path / "run")
    for record in read_run(tmp_path / "run").records:
        assert record["views"]["spherical"]["threshold"] == pytest.approx(
            2 / record["effective_lr"], rel=1e-6
        )


@pytest.mark.parametrize("optimizer", HYPER)
@pytest.mark.parametrize("batch_size", [None, 10])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(tmp_path, optimizer, batch_size):
    wanted = spec(optimizer, batch_size=batch_size)
    train(wanted, tmp_path / "whole")
    stops = 0
    for n in (2, 9, 5, 7, 12, 6, 31):  # between steps and in the middle of measurements
        try:
            train(wanted, tmp_path / "pieces", resume=True, stop=StopAfter(n))
            break
        except Stopped:
            stops += 1
            assert read_run(tmp_path / "pieces").status["status"] == "stopped"
    train(wanted, tmp_path / "pieces", resume=True)
    assert stops >= 3
    whole, pieces = read_run(tmp_path / "whole"), read_run(tmp_path / "pieces")
    assert [untimed(r) for r in whole.records] == [untimed(r) for r in pieces.records]
    assert weights_hash(tmp_path / "whole") == weights_hash(tmp_path / "pieces")


def test_the_threshold_and_tau_follow_the_schedule(tmp_path):
    """2(1 − ηλ + β)/η and Σ ηλ with the rate of each step; the record after the last step keeps its rate."""
    rates = [0.3, 0.3, 0.03, 0.03, 0.003, 0.003, 0.003]
    train(spec(schedule="step:every=2", steps=6, views=("raw",)), tmp_path)
    for record in read_run(tmp_path).records:
        lr = rates[record["step"]]
        assert record["lr"] == pytest.approx(lr)
        assert record["views"]["raw"]["threshold"] == pytest.approx(2 * (1.5 - lr * 1e-2) / lr)
        assert record["tau"] == pytest.approx(1e-2 * sum(rates[: record["step"]]))


@pytest.mark.parametrize("schedule", ["warmup:steps=3+cosine", "effective", "torch:ExponentialLR:gamma=0.9"])
def test_a_run_with_a_schedule_is_resumed_to_the_last_bit(tmp_path, schedule):
    settings = spec("rmsprop", schedule=schedule)
    train(settings, tmp_path / "straight")
    for asked in (9, 31):
        with pytest.raises(Stopped):
            train(settings, tmp_path / "halved", resume=True, stop=StopAfter(asked))
    train(settings, tmp_path / "halved", resume=True)
    straight, halved = (read_run(tmp_path / name).records for name in ("straight", "halved"))
    assert [untimed(r) for r in straight] == [untimed(r) for r in halved]
    assert weights_hash(tmp_path / "straight") == weights_hash(tmp_path / "halved")
    rates = [record["lr"] for record in straight]
    assert max(rates) > 1.001 * min(rates)


def test_a_run_without_a_schedule_has_the_key_that_it_had_before_there_were_any():
    assert "schedule" not in spec().model_dump(mode="json")
    assert spec().key == spec(schedule=None).key != spec(schedule="cosine").key


def test_growth_stands_for_weight_decay(tmp_path):
    """The same directions, so the same losses and spherical sharpnesses, with λ = 0 and a growing rate."""
    decayed = {"lr": 0.3, "weight_decay": 1e-2}
    shared = {"precision": "float64", "rtol": 1e-9, "steps": 20, "every": 10, "views": ("spherical",)}
    train(spec(hyper=decayed, **shared), tmp_path / "decayed")
    grown = spec(hyper=decayed | {"weight_decay": 0.0}, schedule="growth:decay=1e-2", **shared)
    train(grown, tmp_path / "grown")
    for a, b in zip(*(read_run(tmp_path / name).records for name in ("decayed", "grown")), strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-10)
        plain, other = (record["views"]["spherical"] for record in (a, b))
        assert other["value"] == pytest.approx(plain["value"], rel=1e-7)
        if a["step"] < 20:  # after the last step its rate stays in force
            assert other["ratio"] == pytest.approx(plain["ratio"], rel=1e-7)


def test_records_that_were_written_after_the_last_checkpoint_are_not_written_twice(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    class Kill(ProgressListener):
        def on_step(self, step, loss):
            if step == 5:
                raise Killed

    monkeypatch.setattr("optim_family.training.loop.CHECKPOINT_SECONDS", 0.0)
    saved = itertools.count()
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: real(*a) if next(saved) == 0 else None)
    with pytest.raises(Killed):
        train(spec(), tmp_path / "run", listener=Kill())
    monkeypatch.setattr(checkpoint, "save", real)
    assert [r["step"] for r in read_run(tmp_path / "run").records] == [0, 2, 4]
    train(spec(), tmp_path / "run", resume=True)
    train(spec(), tmp_path / "whole")
    again, whole = read_run(tmp_path / "run").records, read_run(tmp_path / "whole").records
    assert [untimed(r) for r in again] == [untimed(r) for r in whole]


def test_a_run_that_explodes_is_kept_as_diverged(tmp_path):
    status = train(spec(hyper={"lr": 1e30, "weight_decay": 0.0}, norm="none"), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert status == run.status["status"] == "diverged"
    assert run.records[-1]["train_loss"] is None
    assert math.isfinite(run.records[0]["train_loss"])


def test_without_normalisation_the_spherical_view_is_marked_as_not_applicable_and_said_once(tmp_path):
    notes = []

    class Notes(ProgressListener):
        def on_message(self, text):
            notes.append(text)

    train(spec("rmsprop", norm="none"), tmp_path / "run", listener=Notes())
    assert len(notes) == 1 and "not applicable" in notes[0]
    for record in read_run(tmp_path / "run").records:
        assert record["views"]["spherical"] is None and record["views"]["spherical-preconditioned"] is None
        assert record["views"]["raw"]["value"] and record["views"]["preconditioned"]["ratio"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"norm": "none", "views": ("spherical",)}, "does not apply"),
        ({"device": "cuda:99"}, "CUDA devices"),
        ({"device": "abacus"}, "no device"),
        ({"model": "resnet17"}, "did you mean"),
        ({"data": "digit"}, "did you mean"),
        ({"ghost_batch": 7}, "does not divide"),
        ({"limit": 5000}, "1437"),
    ],
)
def test_a_specification_that_cannot_be_carried_out_writes_nothing(tmp_path, changes, says):
    with pytest.raises(UsageError, match=says):
        train(spec(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_directory_is_refused_with_the_differing_fields(tmp_path):
    train(spec(steps=1), tmp_path / "run")
    with pytest.raises(UsageError, match=r"hyper\.lr.*steps"):
        train(spec(steps=2, hyper={"lr": 0.5, "weight_decay": 1e-2}), tmp_path / "run", resume=True)


def test_an_unfinished_run_is_continued_only_if_asked(tmp_path):
    with pytest.raises(Stopped):
        train(spec(), tmp_path / "run", stop=StopAfter(12))
    with pytest.raises(UsageError, match="add --resume"):
        train(spec(), tmp_path / "run")


def test_two_at_once_are_refused(tmp_path):
    with (
        RunStore.open(tmp_path / "run", spec().model_dump(mode="json")),
        pytest.raises(BusyError),
    ):
        train(spec(), tmp_path / "run")


def test_a_plugin_that_fails_is_named(tmp_path, monkeypatch):
    class Broken(GD):
        def geometry(self):
            raise ZeroDivisionError("no luck")

    monkeypatch.setattr(registry, "load", lambda name: Broken)
    with pytest.raises(PluginError, match=r"'gd' of optim-family .*geometry\(\): ZeroDivisionError: no luck"):
        train(spec(), tmp_path / "run")


def test_full_precision_and_determinism_are_restored(tmp_path):
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.deterministic
    train(spec(steps=1), tmp_path / "run")
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.deterministic) == before


def test_default_views_follow_the_metric():
    assert build_experiment(spec("gd")).views == ("spherical",)
    assert build_experiment(spec("adamw")).views == ("spherical", "spherical-preconditioned")


def test_a_run_that_died_after_its_last_checkpoint_is_finished_without_another_record(tmp_path):
    wanted = spec("rmsprop")
    train(wanted, tmp_path / "run")
    before = read_run(tmp_path / "run").records
    with RunStore.open(tmp_path / "run", wanted.model_dump(mode="json")) as store:
        store.write("status.json", {"status": "running", "step": 8, "steps": 8, "seconds": 1.0})
    assert train(wanted, tmp_path / "run", resume=True) == "done"
    assert read_run(tmp_path / "run").records == before


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        with pytest.raises(Stopped):
            train(spec(seed=seed, model="bn_mlp"), tmp_path / name, stop=StopAfter(12))
    (tmp_path / "a" / "checkpoints").rename(tmp_path / "old")
    (tmp_path / "b" / "checkpoints").rename(tmp_path / "a" / "checkpoints")
    with pytest.raises(CorruptError, match="no intact checkpoint of its run"):
        train(spec(), tmp_path / "a", resume=True)
