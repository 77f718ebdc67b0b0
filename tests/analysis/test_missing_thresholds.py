from optim_family.analysis.missing_thresholds import missing_thresholds
from tests.helpers.fake_runs import holding, in_norm, make_run

METRIC = "it needs a metric that is a multiple of the identity"


def test_a_run_with_every_threshold_needs_no_reason():
    assert missing_thresholds([make_run("gd", records=5)]) == []


def test_each_view_and_optimizer_has_its_reason_once_and_names_the_view_that_has_a_threshold():
    runs = [make_run("rmsprop", records=5, seed=seed) for seed in range(2)]
    assert missing_thresholds([*runs, make_run("gd", records=5)]) == [
        f"spherical has no threshold for rmsprop: {METRIC}; see spherical-preconditioned"
    ]
    run = make_run("rmsprop", records=5)
    for record in run.records:
        del record["views"]["spherical-preconditioned"]
    assert missing_thresholds([run]) == [f"spherical has no threshold for rmsprop: {METRIC}"]


def test_a_norm_without_a_threshold_repeats_the_note_of_its_reading():
    run, noted = (in_norm(make_run("gd", records=3), threshold=False) for _ in range(2))
    plain = f"spherical has no threshold for gd: {METRIC}; see generalized"
    assert missing_thresholds([run]) == [plain, "generalized has no threshold for gd: none is known"]
    for record in noted.records:
        record["views"]["generalized"]["note"] = "lower bound; no threshold: with momentum none is known; odd"
    assert (
        missing_thresholds([noted])[1] == "generalized has no threshold for gd: with momentum none is known"
    )


def test_a_view_without_a_reading_has_no_reason():
    run = make_run("rmsprop", records=3)
    for record in run.records:
        record["views"]["spherical"] = None
    assert missing_thresholds([run]) == missing_thresholds([holding(run, [])]) == []
