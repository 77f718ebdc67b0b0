"""Each script of examples/, carried out with few steps in a process of its own."""

import importlib.util
import json
import sys

import pytest

from optim_family.runs.run import read_run
from tests.helpers import ROOT
from tests.helpers.environments import call
from tests.helpers.notebooks import executed

EXAMPLES = ROOT / "examples"
SCRIPTS = {
    "digits_torch": ("digits-torch", "torch:SGD", "sklearn"),
    "digits_timm": ("digits-timm", "torch:AdamW", "timm"),
    "digits_lightning": ("digits-lightning", "torch:AdamW", "lightning"),
    "transformer": ("transformer", "torch:AdamW", "transformers"),
}


# Measured along the update by forward passes: no view.
ALONG = {"gpt_critical": ("gpt-critical", "torch:AdamW")}


def carried_out(script, tmp_path, steps):
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return call(sys.executable, EXAMPLES / f"{script}.py", str(steps), cwd=tmp_path, **environment)


def test_every_script_is_named_here_and_in_the_list():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SCRIPTS.keys() | ALONG.keys()
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({script}.py)" in readme for script in SCRIPTS | ALONG)


def test_the_notebook_shows_what_its_code_gives():
    stored = json.loads((EXAMPLES / "runs.ipynb").read_text(encoding="utf-8"))
    assert executed(EXAMPLES / "runs.ipynb") == stored
    assert "(runs.ipynb)" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_leaves_a_run_in_its_own_metric(script, tmp_path):
    folder, optimizer, needs = SCRIPTS[script]
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    output = carried_out(script, tmp_path, 100)
    run = read_run(tmp_path / "runs" / folder)
    assert run.status["status"] == "done" and run.status["step"] == 100
    assert run.spec["optimizer"] == optimizer
    first, *_, last = run.records
    assert last["step"] == 100 and last["train_loss"] < first["train_loss"]
    for record in run.records:
        own = record["views"]["raw" if optimizer == "torch:SGD" else "preconditioned"]
        assert own["value"] > 0
        if record["lr"] > 0:  # the Trainer's schedule ends at 0, and such a step has no threshold
            assert own["ratio"] == pytest.approx(own["value"] / own["threshold"])
    assert first["lr"] > 0
    if script == "transformer":
        all_weights, writers = output.splitlines()[:2]
        assert "not scale-invariant" in all_weights
        assert writers.startswith("weights that add to the residual stream: exactly scale-invariant")


def test_the_gpt_has_its_critical_sharpness_without_second_derivatives(tmp_path):
    output = carried_out("gpt_critical", tmp_path, 20)
    folder, optimizer = ALONG["gpt_critical"]
    run = read_run(tmp_path / "runs" / folder)
    assert run.spec["optimizer"] == optimizer and run.status["status"] == "done"
    first, *later = run.records
    assert "along" not in first and all(record["along"]["critical"] > 0 for record in later)
    assert all(record["along"]["curvature"] is None and record["views"] == {} for record in later)
    assert later[-1]["train_loss"] < first["train_loss"]
    assert "critical sharpness" in output
