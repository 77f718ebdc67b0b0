"""A run that is judged on a further test set."""

import pytest

from optim_family.errors import UsageError
from optim_family.runs.run import series, with_test_set
from tests.helpers.fake_runs import holding, make_run


def with_shifted(run):
    return holding(
        run,
        [
            {**r, "test_loss": 0.3, "test_loss_shifted": 0.5, "test_accuracy_shifted": 0.25}
            for r in run.records
        ],
    )


def test_a_further_test_set_changes_places_with_the_first():
    run = with_shifted(make_run(records=5))
    judged = with_test_set(run, "shifted")
    assert (series(judged, "test_accuracy") == 0.25).all() and (series(judged, "test_loss") == 0.5).all()
    assert (series(judged, "test_accuracy_shifted") == series(run, "test_accuracy")).all()
    assert (series(judged, "train_loss") == series(run, "train_loss")).all()
    assert judged.columns.names == run.columns.names and judged.columns.count == 5
    again = with_test_set(judged, "shifted")
    assert all((series(again, n) == series(run, n)).all() for n in ("test_accuracy", "test_loss_shifted"))


def test_a_run_without_this_test_set_is_refused():
    with pytest.raises(
        UsageError, match="runs/a: there is no further test set 'shiftet'; did you mean 'shifted'"
    ):
        with_test_set(with_shifted(make_run(records=5)), "shiftet")
    with pytest.raises(UsageError, match="there is no further test set 'shifted'; known: none"):
        with_test_set(make_run(records=5), "shifted")
