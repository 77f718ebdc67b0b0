"""The checks of the conformance suite, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

from optim_family.conformance import behaviour_checks as behaviour
from optim_family.conformance import geometry_checks as geometry
from optim_family.conformance import norm_checks as norms
from optim_family.optimizers.base import OptimizerBase

Check = Callable[[type[OptimizerBase]], str]
# Each check, and what a correct optimizer shows.
EXPECTED: Final[Mapping[Check, str]] = {
    geometry.check_threshold_is_sharp: f"growth below 1 at {1 - geometry.OFFSET} T, above 1 at "
    f"{1 + geometry.OFFSET} T",
    geometry.check_metric_is_that_of_the_step: "P > 0, cosine with −P⁻¹δ above 1 − 1e-8",
    geometry.check_freeze_holds_the_metric: "relative change of P below 1e-6",
    geometry.check_decay_is_as_declared: "error below 1e-12 ‖w‖",
    norms.check_norm_and_dual_belong_together: "relative error below 1e-9",
    norms.check_step_is_the_maximiser: "relative error below 1e-9, or below `inexact`",
    norms.check_orbit_sits_at_the_threshold: "mean of threshold/sharpness within 1e-6 of 1, or `inexact`",
    behaviour.check_geometry_follows_a_schedule: "threshold and decay follow the values in force",
    behaviour.check_geometry_changes_nothing: "bitwise identical steps",
    behaviour.check_state_is_complete: "bitwise identical steps after loading",
    behaviour.check_state_can_be_saved: "bitwise identical steps after a checkpoint",
    behaviour.check_is_deterministic: "bitwise identical steps",
    behaviour.check_all_tensors_at_once: "bitwise identical steps of update_all and update",
    behaviour.check_one_parameter_group: "a second group raises ValueError",
    geometry.check_rescaling: "directions differ by less than 1e-10",
}
CHECKS: Final = tuple(EXPECTED)
