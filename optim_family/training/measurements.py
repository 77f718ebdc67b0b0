"""What a run is measured with at a record: its views, and if asked for the midpoint and the mini-batches.

A reading beside a view carries the view's name and one more word, in its unit and with its threshold:

    spherical             λ₁ at the weights wₜ
    spherical-midpoint    λ₁ at (wₜ₋₂ + 2 wₜ₋₁ + wₜ)/4, centred a step before; in the metric of the record
    spherical-batch       E_B[g_Bᵀ H_B g_B / ‖g_B‖²] at wₜ
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.geometry import Geometry
from optim_family.operators import HookedOperator
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.sharpness.midpoint import WeightHistory, moved_to
from optim_family.sharpness.probe import ProbeSet
from optim_family.sharpness.views import BATCH, MIDPOINT
from optim_family.training.experiment import Experiment

Readings = dict[str, dict[str, Any] | None]
Batch = list[ChunkLoss]


@final
class Measurements:
    """Measures a run again and again; remembers how many readings there were, and the last three weights.

    Args:
        experiment: what is measured, at its present weights.
        check: called before every product with a Hessian; it may raise, which leaves no
            trace in what is remembered.
        note: told once, in one line, that the graphs did not fit the memory.
    """

    def __init__(
        self, experiment: Experiment, check: Callable[[], object], note: Callable[[str], object]
    ) -> None:
        self.experiment, self.objective = experiment, experiment.objective
        self.check, self.note, self.trail = check, note, WeightHistory()
        spec = experiment.spec
        self.panel = ProbeSet(experiment.views, rtol=spec.rtol, seed=spec.seed)
        self.middle = ProbeSet(experiment.views if spec.midpoint else (), rtol=spec.rtol, seed=spec.seed)

    def observe_step(self, step: int) -> None:
        """Remember the weights of a step without a record, if the next record needs them."""
        spec = self.experiment.spec
        left = min(-step % spec.every, spec.steps - step)
        if spec.midpoint and left <= 2:
            self.trail.push(self.objective.space.weights())

    def __call__(self, step: int) -> Readings:
        """All readings as JSON, by name; None where a view does not apply, or no gradient has a direction."""
        before = self.state_dict()
        try:
            geometry = self.experiment.geometry()
            return {
                **dict.fromkeys(self.experiment.skipped_views),
                **self._read(self.panel, geometry),
                **self._at_midpoint(geometry),
                **self._of_batches(step, geometry),
            }
        except BaseException:
            self.load_state_dict(before)
            raise

    def _read(self, panel: ProbeSet, geometry: Geometry, beside: str = "") -> Readings:
        hessian, planned = self.objective.hessian(), self.objective.mode
        readings = panel(HookedOperator(hessian, self.check), self.objective.space.weights(), geometry)
        if hessian.mode != planned:
            self.objective.mode = hessian.mode
            self.note("the gradients' graphs do not fit the memory; they are rebuilt for every product now")
        return {name + beside: reading.as_record() for name, reading in readings.items()}

    def _at_midpoint(self, geometry: Geometry) -> Readings:
        if not self.experiment.spec.midpoint:
            return {}
        space = self.objective.space
        self.trail.push(space.weights())
        if (point := self.trail.midpoint) is None:
            return {}
        with moved_to(space, point):
            return self._read(self.middle, geometry, MIDPOINT)

    def _of_batches(self, step: int, geometry: Geometry) -> Readings:
        spec, found = self.experiment.spec, Readings()
        if spec.batch_sharpness is None:
            return found
        batches = self.objective.sample_batches(spec.batch_sharpness, spec.seed * 1_000_003 + step)
        for view in self.experiment.views:
            try:
                reading = batch_sharpness(
                    self._watched(batches),
                    self.objective.space.tensors,
                    geometry,
                    view=view,
                    all_reduce=self.objective.process_group.all_reduce_vector,
                )
                found[view + BATCH] = reading.as_record()
            except FloatingPointError:  # the loss of a mini-batch may have reached 0
                found[view + BATCH] = None
        return found

    def _watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:  # a gradient and a product each
            self.check()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """What the next readings depend on."""
        return {
            "panel": self.panel.state_dict(),
            "middle": self.middle.state_dict(),
            "trail": self.trail.state_dict(),
            "mode": self.objective.mode,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where others stood; what did not fit their memory is not tried again."""
        self.panel.load_state_dict(state["panel"])
        self.middle.load_state_dict(state["middle"])
        self.trail.load_state_dict(state["trail"])
        if state["mode"] == "rebuilt":
            self.objective.mode = "rebuilt"
