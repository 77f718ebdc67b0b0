"""Plugins that fail in every way: each check has a result, and the result names what happened."""

import json

import pytest

from optim_family import registry
from optim_family.cli import run_progress
from optim_family.conformance import runner, suite
from optim_family.conformance.runner import run_checks
from optim_family.errors import PluginError, UsageError
from tests.helpers.broken_plugin import GEOMETRY, GOOD, HYPER, SCALAR, UPDATE, broken
from tests.helpers.cli_runner import optim_family, refusal

QUICK = ("decay_is_as_declared", "is_deterministic", "one_parameter_group")


def results_of(*checks, **options):
    return {result.check: result for result in run_checks("plain", checks, **options)}


def test_a_correct_plugin_passes_every_check_whatever_it_prints(broken_plugin):
    broken_plugin(
        GOOD.replace(UPDATE, "print('x' * 100_000); " + UPDATE).replace(
            GEOMETRY, "        print(1)\n" + GEOMETRY
        )
    )
    results = results_of()
    assert len(results) >= 10 and all(result.as_declared for result in results.values())
    undeclared = {check for check, result in results.items() if not result.applies}
    assert undeclared >= {"norm_and_dual_belong_together", "orbit_sits_at_the_threshold"}
    assert not undeclared & {"threshold_is_sharp", "decay_is_as_declared", "is_deterministic"}
    for check, result in results.items():
        assert result.verdict == ("n/a" if check in undeclared else "passed")
        assert result.measured.endswith(" declared") == (check in undeclared)
    assert all(result.expected and result.measured for result in results.values())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (UPDATE, "raise KeyError('m'); " + UPDATE, "Plain raises KeyError: 'm'"),
        (UPDATE, "sys.exit('enough'); " + UPDATE, "Plain raises SystemExit: enough"),
        (UPDATE, "w.copy_(torch.zeros(3)); " + UPDATE, "Plain raises RuntimeError: "),
        (GEOMETRY, "        raise OSError('no')\n" + GEOMETRY, "Plain raises OSError: no"),
        (SCALAR, "ScalarMetric(self.dim, -1.0)", "a metric must be positive and finite"),
        (
            "ScalarMetric(self.dim)",
            "ScalarMetric(self.dim, float('nan'))",
            "a metric must be positive and finite",
        ),
        (SCALAR, "DiagonalMetric(torch.ones(3))", "Plain raises "),
        (
            HYPER,
            "Hyper = Hyper\n    def state_dict(self):\n        raise IOError('full')\n",
            "OSError: full",
        ),
        (
            HYPER,
            "Hyper = Hyper\n    def __init__(self, *a, **k):\n        1 / 0\n",
            "ZeroDivisionError",
        ),
        (
            UPDATE,
            "state['f'] = lambda: 0; " + UPDATE,
            "Plain.state_dict() cannot be saved: ",
        ),
        ("momentum_threshold(self", "1.3 * momentum_threshold(self", "Likely causes: momentum"),
    ],
)
def test_a_failed_check_names_the_cause_and_the_process_lives(broken_plugin, old, new, says):
    broken_plugin(broken(GOOD, old, new))
    optimizer = registry.load("plain")
    results = [runner.run_check(check, optimizer) for check in suite.CHECKS]
    assert any(says in measured for passed, measured in results if not passed)


def test_a_plugin_that_ends_its_process_fails_one_check_at_a_time(broken_plugin):
    broken_plugin(
        broken(GOOD, GEOMETRY, "        if self.values['weight_decay'] == 0.3: os._exit(7)\n" + GEOMETRY)
    )
    results = results_of(*QUICK)
    assert results["decay_is_as_declared"].measured == "plain ended the process with exit code 7"
    assert results["is_deterministic"].as_declared and results["one_parameter_group"].as_declared
    assert tuple(results) == QUICK


def test_a_plugin_that_never_returns_is_stopped(broken_plugin):
    broken_plugin(
        broken(GOOD, GEOMETRY, "        while self.values['weight_decay'] == 0.3: print('x')\n" + GEOMETRY)
    )
    results = results_of(*QUICK, seconds=20.0)
    assert results["decay_is_as_declared"].measured == "plain did not return in time"
    assert results["one_parameter_group"].as_declared


def test_the_time_limit_is_for_each_check_and_longer_for_the_imports(broken_plugin, capsys, monkeypatch):
    limits, wait = [], runner._next_line
    monkeypatch.setattr(
        runner, "_next_line", lambda process, seconds: limits.append(seconds) or wait(process, 60.0)
    )
    broken_plugin(GOOD)
    results_of("one_parameter_group", "is_deterministic", seconds=7.0)
    assert limits == [7.0 + runner._IMPORT_SECONDS, 7.0, 7.0]
    limits.clear()
    monkeypatch.setattr(suite, "CHECKS", suite.CHECKS[-2:])
    assert optim_family(capsys, "optimizers", "check", "plain", "--seconds", "9").code == 0
    assert limits[:2] == [9 + runner._IMPORT_SECONDS, 9]


def test_an_expected_failure_is_as_declared_and_its_absence_is_not(broken_plugin):
    reasons = '{"threshold_is_sharp": "it is wrong on purpose", "is_deterministic": "it rolls dice"}'
    source = broken(GOOD, "momentum_threshold(self", "1.3 * momentum_threshold(self")
    source = broken(source, UPDATE, "state['f'] = lambda: 0; " + UPDATE)
    broken_plugin(broken(source, HYPER, f"Hyper = Hyper\n    expected_failures = {reasons}\n"))
    results = results_of(
        "threshold_is_sharp", "is_deterministic", "state_can_be_saved", "one_parameter_group"
    )
    assert results["threshold_is_sharp"].as_declared and not results["threshold_is_sharp"].passed
    assert results["threshold_is_sharp"].verdict == "expected failure: it is wrong on purpose"
    assert results["is_deterministic"].passed and not results["is_deterministic"].as_declared
    assert results["is_deterministic"].verdict == "passed, though expected to fail: it rolls dice"
    assert results["state_can_be_saved"].verdict == "failed" and not results["state_can_be_saved"].as_declared
    assert results["one_parameter_group"].verdict == "passed" and results["one_parameter_group"].as_declared


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "raise RuntimeError('broken')",
            r"'plain' of test-plugin 1\.5 cannot be imported: RuntimeError: broken",
        ),
        (
            "import os; os._exit(9)",
            r"'plain' of test-plugin 1\.5 ended the process with exit code 9 while it was imp",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named(broken_plugin, source, says):
    broken_plugin(source)
    with pytest.raises(PluginError, match=says):
        list(run_checks("plain"))


def test_a_plugin_whose_import_never_ends_is_named(broken_plugin, monkeypatch):
    broken_plugin("while True: print('x')")
    monkeypatch.setattr(runner, "_IMPORT_SECONDS", 1.0)
    with pytest.raises(
        PluginError, match=r"'plain' of test-plugin 1\.5 did not return in time while it was imported"
    ):
        list(run_checks("plain", seconds=1.0))


def test_an_unknown_name_is_a_mistake_of_the_user():
    with pytest.raises(UsageError, match="no optimizer 'rmsprob'; did you mean 'rmsprop'"):
        list(run_checks("rmsprob"))


def test_the_command_refuses_an_unknown_name_before_it_says_that_it_imports_it(capsys):
    assert "there is no optimizer 'lio'; did you mean 'lion'?" in refusal(
        optim_family(capsys, "optimizers", "check", "lio")
    )


def test_a_limit_that_is_no_number_of_seconds_is_a_mistake_of_the_user(capsys):
    for seconds in ("nan", "0", "1.5"):
        assert optim_family(capsys, "optimizers", "check", "gd", "--seconds", seconds).code == 2


def test_the_command_prints_one_line_for_each_check(broken_plugin, capsys):
    broken_plugin(broken(GOOD, "momentum_threshold(self", "1.3 * momentum_threshold(self"))
    answer = optim_family(capsys, "optimizers", "check", "plain")
    header, *lines = answer.out.splitlines()
    assert header.split() == ["check", "verdict", "expected", "measured"]
    assert len(lines) == len(suite.CHECKS)
    assert (
        lines[0].startswith("threshold_is_sharp") and "failed" in lines[0] and "declares the thr" in lines[0]
    )
    assert all("  passed  " in line or "  n/a  " in line for line in lines[1:])
    assert answer.code == 6
    signs_of_life = len(answer.err.splitlines()) - 1
    assert signs_of_life >= 1 and answer.err.splitlines()[-1] + "\n" == (
        "optim-family: optimizer 'plain' of test-plugin 1.5 differs from its declaration: "
        "threshold_is_sharp\n"
    )


def test_each_check_is_announced_with_its_number_in_a_new_process_too(broken_plugin):
    broken_plugin(GOOD.replace(UPDATE, "import os; os._exit(3)\n        " + UPDATE))
    seen = []
    assert len([*run_checks("plain", QUICK, on_check=seen.append)]) == 3
    assert seen == [f"{i} of 3: {check}" for i, check in enumerate(QUICK, 1)]


def test_the_command_says_what_it_is_trying_on_stderr(broken_plugin, capsys, monkeypatch):
    broken_plugin(GOOD)
    monkeypatch.setattr(run_progress, "_EVERY", 0.0)
    answer = optim_family(capsys, "optimizers", "check", "plain", "--json")
    lines = answer.err.splitlines()
    assert lines[0] == "plain: importing it in a separate process …"
    total = len(json.loads(answer.out)["checks"])
    assert lines[3].startswith(f"plain, check 3 of {total}: ") and len(lines) == total + 1
    assert optim_family(capsys, "optimizers", "check", "plain", "-q").err == ""
