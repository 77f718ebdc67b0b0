"""The command of a run makes the same specification."""

import shlex
from dataclasses import replace

import pytest

from optim_family import registry
from optim_family.cli.commands import run as run_command
from optim_family.cli.output import Output
from optim_family.runs.command import command
from tests.helpers.fake_runs import make_run


def specification(text, monkeypatch):
    """What `optim-family run` would train with these words."""
    trained = []
    monkeypatch.setattr("optim_family.cli.run.run_command", lambda spec, *_: trained.append(spec) or 0)
    run_command.command.main(shlex.split(text)[2:], obj=Output(), standalone_mode=False)
    return trained[0].model_dump(mode="json")


@pytest.mark.parametrize(
    "name", ["gd", "sgd", "rmsprop", "adamw", "torch:AdamW", "torch:SGD", "timm:lamb", "torch:RMSprop"]
)
def test_it_repeats_a_run_of_any_optimizer(name, monkeypatch):
    run = make_run(records=1, limit=200)
    run.spec.update({"optimizer": name, "hyper": registry.load(name).Hyper().model_dump(mode="json")})
    if name == "rmsprop":  # whose norm is not that of the network
        run.spec["hyper"]["norm"] = "tensor"
    assert specification(command(run), monkeypatch) == run.spec


def test_it_repeats_every_field(monkeypatch):
    run = make_run(
        records=1,
        **{"limit": 40, "batch_size": 20, "ghost_batch": 10, "midpoint": True, "views": ("raw", "spherical")},
        **{"schedule": "warmup:steps=5+cosine", "batch_sharpness": 3, "hvp": "rebuilt", "norm": "none"},
        **{"loss": "cross-entropy", "seed": 3, "precision": "float64", "rtol": 0.01, "model": "a b; rm -r"},
    )
    assert specification(command(run), monkeypatch) == run.spec


def test_all_digits_are_their_number(monkeypatch):
    run = replace(make_run(records=1), provenance={"data": {"train": 1437}})
    assert specification(command(run), monkeypatch) == run.spec | {"limit": 1437}


def test_a_run_of_a_script_has_none():
    run = make_run(records=1)
    run.spec.update({"data": "script", "steps": None})
    assert command(run) is None
