from dataclasses import replace

from optim_family.analysis.run_summary import summary, summary_rows
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


def test_readings_that_rounding_decides_are_named_and_are_no_peak():
    run = make_run(records=4)
    for record, value, rounding in zip(
        run.records, (9e8, 3.0, 5.0, 4.0), (0.7, 1e-3, 1e-5, 1e-5), strict=True
    ):
        record["views"]["spherical-preconditioned"] = record["views"]["spherical"] | {
            "converged": True,
            "value": value,
            "rounding": rounding,
        }
    assert list(warnings(run)) == [
        "spherical-preconditioned: rounding of the gradient behind the metric decides 1 of 4 readings; "
        "it can change that of step 0 by 70%"
    ]
    results = summary(run)
    assert results["views"]["spherical-preconditioned"]["peak"] == 5.0 and results["rounded"] == 1
    assert ["readings decided by rounding", "1"] in summary_rows([run])[1]
