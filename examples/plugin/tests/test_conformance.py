"""What the two declare about themselves, held against their real steps."""

import pytest
from example_optimizers.kron import Kron
from example_optimizers.lion import Lion

from optim_family import testing

NEED_A_METRIC = {
    testing.check_threshold_is_sharp,
    testing.check_metric_is_that_of_the_step,
    testing.check_freeze_holds_the_metric,
}
PROMISES = [(Kron, check) for check in testing.CHECKS]
PROMISES += [(Lion, check) for check in testing.CHECKS if check not in NEED_A_METRIC]


@pytest.mark.parametrize(("optimizer", "check"), PROMISES, ids=lambda thing: thing.__name__)
def test_it_keeps_its_promises(optimizer, check):
    """The check raises an AssertionError where it does not."""
    check(optimizer)
