from dataclasses import replace

from optim_family.analysis.run_warnings import warnings
from tests.helpers.fake_runs import make_run


def test_a_sound_run_has_none():
    run = make_run(records=9)
    for record in run.records:
        record["views"]["spherical"] |= {"converged": True, "check": "passed"}
    assert list(warnings(run)) == []


def test_each_reason_is_a_line():
    run = make_run(records=4, status="running")
    run.status["steps"] = 99
    for record, converged in zip(run.records, (True, False, False, True), strict=True):
        record["views"]["spherical"] |= {"converged": converged, "check": "no result: a kink"}
    run = replace(
        run, provenance={"model": {"invariant": False, "verdict": "not scale-invariant: loss differs at 2w"}}
    )
    assert list(warnings(run)) == [
        "not finished: running at step 30 of 99",
        "spherical: 2 of 4 readings did not converge",
        "not scale-invariant: loss differs at 2w",
        "spherical: no result: a kink",
    ]
    assert next(warnings(make_run(records=4, status="diverged"))).startswith("training diverged: step 30")
