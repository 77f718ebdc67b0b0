"""The conformance suite: tests of what an optimizer declares about itself against its real steps.

    import optim_family.testing
    from my_package.lion import Lion

    @pytest.mark.parametrize("check", optim_family.testing.CHECKS, ids=lambda check: check.__name__)
    def test_lion(check):
        check(Lion)

Every check builds the optimizer for each combination of its hyper-parameters' choices (literals, booleans
and the `examples` of a field), with weight decay and without, in float64 on a quadratic or on a
scale-invariant loss. It returns what it measured, or raises an AssertionError that names the declaration,
the hyper-parameters, what the real step did, and the likely cause. `optim-family optimizers check NAME` runs
them all.
"""

from optim_family.conformance.behaviour_checks import (
    check_geometry_changes_nothing,
    check_geometry_follows_a_schedule,
    check_is_deterministic,
    check_one_parameter_group,
    check_state_can_be_saved,
    check_state_is_complete,
)
from optim_family.conformance.geometry_checks import (
    check_decay_is_as_declared,
    check_freeze_holds_the_metric,
    check_metric_is_that_of_the_step,
    check_rescaling,
    check_threshold_is_sharp,
)
from optim_family.conformance.suite import CHECKS, EXPECTED, Check

__all__ = [
    "CHECKS",
    "EXPECTED",
    "Check",
    "check_decay_is_as_declared",
    "check_freeze_holds_the_metric",
    "check_geometry_changes_nothing",
    "check_geometry_follows_a_schedule",
    "check_is_deterministic",
    "check_metric_is_that_of_the_step",
    "check_one_parameter_group",
    "check_rescaling",
    "check_state_can_be_saved",
    "check_state_is_complete",
    "check_threshold_is_sharp",
]
