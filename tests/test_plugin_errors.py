"""Runs with a plugin that fails: exit 6, one line that names optimizer, distribution, version and method."""

import json

import pytest

from tests.helpers.broken_plugin import GEOMETRY, GOOD, HYPER, SCALAR, UPDATE, broken
from tests.helpers.cli_runner import optim_family

TINY = "--limit", "20", "--steps", "2", "--every", "1"
INIT = HYPER + "    def __init__(self, *a, **k):\n        sys.exit(1)\n"
STATE = HYPER + "    def state_dict(self):\n        raise OSError('full')\n"
LOAD = HYPER + "    def load_state_dict(self, state):\n        raise KeyError('m')\n"


RETURN = "return Geometry(ScalarMetric(self.dim), threshold, decay)"
NORM = """class Own(Norm):
            dim = self.dim
            def value(self, step): return {value}
            def dual(self, gradient): return 1.0
            def maximizer(self, gradient): return gradient
        return Geometry.in_norm(Own(), threshold, decay)"""


def run(capsys, tmp_path, name="plain", *more):
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
            "failed in geometry(): ValueError: a metric must be positive and finite",
        ),
        (
            SCALAR,
            "ScalarMetric(self.dim, float('nan'))",
            "failed in geometry(): ValueError: a metric must be positive and finite",
        ),
        (
            SCALAR,
            "DiagonalMetric(torch.ones(3))",
            "failed in geometry(): ValueError: the metric is for 3 weights, and 5832 are",
        ),
        (
            "momentum_threshold(self",
            "-momentum_threshold(self",
            "failed in geometry(): ValueError: the threshold must be positive",
        ),
        (
            SCALAR,
            "torch.eye(3)",
            "failed in geometry(): TypeError: geometry().metric must be a Metric; got Tensor",
        ),
        (
            GEOMETRY,
            "        self.weights[0].data.mul_(2)\n" + GEOMETRY,
            "failed in geometry(): ValueError: it moves the weights, which only step() may",
        ),
        (
            "return Geometry",
            "Geometry",
            "failed in geometry(): TypeError: geometry() must return a Geometry; got NoneType",
        ),
        (
            RETURN,
            "return Geometry(None, threshold, decay)",
            "failed in geometry(): TypeError: geometry().metric must be a Metric; got NoneType",
        ),
        (
            RETURN,
            "return Geometry(ScalarMetric(self.dim), threshold, decay, norm='max')",
            "failed in geometry(): TypeError: geometry().norm must be a Norm; got str",
        ),
        (
            RETURN,
            "return Geometry.in_norm(MaxNorm(3), threshold, decay)",
            "failed in geometry(): ValueError: the norm is for 3 weights, and 5832 are trained",
        ),
        (
            RETURN,
            NORM.format(value="-float(step.norm())"),
            "failed in geometry(): ValueError: Own is not a norm: N(w) = -",
        ),
        (
            RETURN,
            NORM.format(value="float(step.norm()) ** 2"),
            "Own is not a norm: N(w) = 106.1, but N(2w) = 424.3 and N(−w) = 106.1",
        ),
        (HYPER, STATE, "failed in state_dict(): OSError: full"),
        (
            UPDATE,
            "state['f'] = lambda: 0; " + UPDATE,
            "returned a state_dict() that cannot be saved: TypeError: ",
        ),
    ],
)
def test_a_run_says_who_failed_where(broken_plugin, capsys, tmp_path, old, new, says):
    broken_plugin(broken(GOOD, old, new))
    answer = run(capsys, tmp_path)
    assert answer.code == 6 and answer.out == ""
    assert answer.err.startswith("optim-family: optimizer 'plain' of test-plugin 1.5 ")
    assert says in answer.err and answer.err.count("\n") == 1


def test_a_resumed_run_says_so_too(broken_plugin, capsys, tmp_path):
    broken_plugin(broken(GOOD, HYPER, LOAD))
    assert run(capsys, tmp_path).code == 0
    (tmp_path / "plain" / "status.json").unlink()
    answer = run(capsys, tmp_path, "plain", "--resume")
    assert answer.code == 6 and "of test-plugin 1.5 failed in load_state_dict(): KeyError: 'm'" in answer.err


def test_the_others_keep_working(broken_plugin, capsys, tmp_path):
    broken_plugin("raise RuntimeError('broken')")
    answer = run(capsys, tmp_path)
    assert answer.code == 6
    assert "'plain' of test-plugin 1.5 cannot be imported: RuntimeError: broken" in answer.err
    assert run(capsys, tmp_path, "gd").code == 0
    listed = optim_family(capsys, "optimizers", "-v")
    assert listed.code == 0
    states = {line.split()[0]: line for line in listed.out.splitlines()}
    assert "broken: " in states["plain"] and states["gd"].endswith("loads")


def test_a_view_that_needs_a_metric_is_refused_where_there_is_none(capsys, tmp_path):
    answer = run(capsys, tmp_path, "torch:Adafactor", "--view", "preconditioned")
    assert answer.code == 2 and "does not apply: there is no metric: Adafactor declares none" in answer.err
    assert not (tmp_path / "torch:Adafactor").exists()


def test_a_flood_does_not_reach_the_answer(broken_plugin, capsys, tmp_path):
    broken_plugin(broken(GOOD, UPDATE, "print('x' * 100_000); " + UPDATE))
    answer = run(capsys, tmp_path, "plain", "--json")
    assert answer.code == 0
    json.loads(answer.out)
