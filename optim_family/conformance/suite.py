"""The checks of the conformance suite, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

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
from optim_family.optimizers.base import OptimizerBase

Check = Callable[[type[OptimizerBase]], str]
# Each check, and what a correct optimizer shows.
EXPECTED: Final[Mapping[Check, str]] = {
    check_threshold_is_sharp: "growth below 1 at 0.995 T, above 1 at 1.005 T",
    check_metric_is_that_of_the_step: "P > 0, cosine with −P⁻¹δ above 1 − 1e-8",
    check_freeze_holds_the_metric: "relative change of P below 1e-6",
    check_decay_is_as_declared: "error below 1e-12 ‖w‖",
    check_geometry_follows_a_schedule: "threshold and decay follow the values in force",
    check_geometry_changes_nothing: "bitwise identical steps",
    check_state_is_complete: "bitwise identical steps after loading",
    check_state_can_be_saved: "bitwise identical steps after a checkpoint",
    check_is_deterministic: "bitwise identical steps",
    check_one_parameter_group: "a second group raises ValueError",
    check_rescaling: "directions differ by less than 1e-10",
}
CHECKS: Final = tuple(EXPECTED)
