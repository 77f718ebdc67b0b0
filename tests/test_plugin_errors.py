"""Runs of plugins that misbehave: exit 6, and a line that names plugin, distribution, version and promise."""

import json

import pytest

from tests.helpers.broken_plugin import GEOMETRY, GOOD, HYPER, SCALAR, UPDATE, broken
from tests.helpers.cli_runner import optim_family

TINY = "--limit", "20", "--steps", "2", "--every", "1"
INIT = HYPER + "    def __init__(self, *a, **k):\n        sys.exit(1)\n"
STATE = HYPER + "    def state_dict(self):\n        raise OSError('full')\n"
LOAD = HYPER + "    def load_state_dict(self, state):\n        raise KeyError('m')\n"


def run(capsys, tmp_path, name="wild", *more):
    return optim_family(capsys, "run", "--optimizer", name, *TINY, "--out", tmp_path / name, "--quiet", *more)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (HYPER, INIT, "failed in its constructor: SystemExit: 1"),
        (UPDATE, "raise KeyError('m'); " + UPDATE, "failed in step(): KeyError: 'm'"),
        (UPDATE, "sys.exit('enough'); " + UPDATE, "failed in step(): SystemExit: enough"),
        (UPDATE, "w.copy_(torch.zeros(7)); " + UPDATE, "failed in step(): RuntimeError: "),
        (GEOMETRY, "        sys.exit()\n" + GEOMETRY, "failed in geometry(): SystemExit"),
        (
            SCALAR,
            "ScalarMetric(self.dim, -1.0)",
            "geometry(): ValueError: a metric must be positive and finite",
        ),
        (SCALAR, "ScalarMetric(self.dim, float('nan'))", "ValueError: a metric must be positive and finite"),
        (SCALAR, "DiagonalMetric(torch.ones(3))", "ValueError: the metric is for 3 weights, and 5832 are"),
        ("momentum_threshold(self", "-momentum_threshold(self", "ValueError: the threshold must be positive"),
        (
            SCALAR,
            "torch.eye(3)",
            "failed in geometry(): TypeError: geometry().metric must be a Metric; got Tensor",
        ),
        (HYPER, STATE, "failed in state_dict(): OSError: full"),
        (UPDATE, "state['f'] = lambda: 0; " + UPDATE, "failed in saving its state_dict(): TypeError: "),
    ],
)
def test_a_run_says_who_failed_where(plugin, capsys, tmp_path, old, new, says):
    plugin(broken(GOOD, old, new))
    told = run(capsys, tmp_path)
    assert told.code == 6 and told.out == ""
    assert told.err.startswith("optim-family: the optimizer wild (wild-plugin 1.5) failed in ")
    assert says in told.err and told.err.count("\n") == 1


def test_a_resumed_run_says_so_too(plugin, capsys, tmp_path):
    plugin(broken(GOOD, HYPER, LOAD))
    assert run(capsys, tmp_path).code == 0
    (tmp_path / "wild" / "status.json").unlink()
    told = run(capsys, tmp_path, "wild", "--resume")
    assert told.code == 6 and "(wild-plugin 1.5) failed in load_state_dict(): KeyError: 'm'" in told.err


def test_the_others_keep_working(plugin, capsys, tmp_path):
    plugin("raise RuntimeError('broken')")
    told = run(capsys, tmp_path)
    assert told.code == 6
    assert "'wild' of wild-plugin 1.5 cannot be imported: RuntimeError: broken" in told.err
    assert run(capsys, tmp_path, "gd").code == 0
    listed = optim_family(capsys, "optimizers", "-v")
    assert listed.code == 0
    states = {line.split()[0]: line for line in listed.out.splitlines()}
    assert "broken: " in states["wild"] and states["gd"].endswith("loads")


def test_a_view_that_needs_a_metric_is_refused_where_there_is_none(capsys, tmp_path):
    told = run(capsys, tmp_path, "torch:Adafactor", "--view", "preconditioned")
    assert told.code == 2 and "does not apply: there is no metric: that of Adafactor has not been" in told.err
    assert not (tmp_path / "torch:Adafactor").exists()


def test_a_flood_does_not_reach_the_answer(plugin, capsys, tmp_path):
    plugin(broken(GOOD, UPDATE, "print('x' * 100_000); " + UPDATE))
    told = run(capsys, tmp_path, "wild", "--json")
    assert told.code == 0
    json.loads(told.out)
