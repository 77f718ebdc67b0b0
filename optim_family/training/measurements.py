"""The measurements of a record: the views, and on request their midpoint and mini-batch variants.

A variant has the name of its view with a suffix, and the same unit and threshold:

    spherical             λ₁ at the weights wₜ
    spherical-midpoint    λ₁ at (wₜ₋₂ + 2 wₜ₋₁ + wₜ)/4, centred at wₜ₋₁; in the metric of wₜ
    spherical-batch       E_B[g_Bᵀ H_B g_B / ‖g_B‖²] at wₜ
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, final

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.geometry import Geometry, equilibrium_rotation
from optim_family.operators import HookedOperator
from optim_family.registry import entry, named_error
from optim_family.sharpness.along_update import UpdateObserver
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.sharpness.midpoint import WeightHistory, moved_to
from optim_family.sharpness.probe_set import ProbeSet, lanczos_instead
from optim_family.sharpness.self_check import PASSED, check_loss
from optim_family.sharpness.views import BATCH, MIDPOINT, VIEWS
from optim_family.training.experiment import Experiment

Readings = dict[str, dict[str, Any] | None]
Batch = list[ChunkLoss]


@final
class Measurements:
    """Measures a run at every record; remembers the state of the probes and the last three weights.

    Args:
        experiment: measured at its present weights.
        before_product: called before every Hessian-vector product; if it raises, the state is unchanged.
        on_message: called once, with one line, if the graphs do not fit in memory.
    """

    def __init__(
        self,
        experiment: Experiment,
        before_product: Callable[[], object],
        on_message: Callable[[str], object],
    ) -> None:
        self.experiment, self.objective = experiment, experiment.objective
        self.before_product, self.on_message, self.history = before_product, on_message, WeightHistory()
        self.checked = False
        spec = experiment.spec
        self.observer = UpdateObserver(experiment.optimizer, self.objective.space) if spec.along else None
        options: dict[str, Any] = {"rtol": spec.rtol, "seed": spec.seed, "reading": spec.reading}
        self.probes = ProbeSet(experiment.views, budget=spec.budget, **options)
        # A normalised step has no sharpness where the oscillation, and with it the gradient, cancels.
        self.variant_views = [name for name in experiment.views if not VIEWS[name].generalized]
        self.midpoint_probes = ProbeSet(self.variant_views if spec.midpoint else (), **options)

    def observe_step(self, step: int) -> None:
        """Remember the weights of a step without a record, if the next record needs them."""
        spec = self.experiment.spec
        until_record = min(-step % spec.every, spec.steps - step)
        if spec.midpoint and until_record <= 2:
            self.history.push(self.objective.space.weights())
        if self.observer:
            self.observer.expect(until_record == 1)

    def __call__(self, step: int, geometry: Geometry | None = None) -> Readings:
        """Measurements as JSON, by name; None if a view does not apply, or a mini-batch gradient is zero.

        The geometry is that of the next step, computed from `.grad` if it is None.
        """
        before = self.state_dict()
        try:
            geometry = geometry or self.experiment.geometry()
            first = not self.checked
            self._check()
            return {
                **dict.fromkeys(self.experiment.skipped_views),
                **self._measure(self.probes, geometry, first=first),
                **self._at_midpoint(geometry),
                **self._of_batches(step, geometry),
            }
        except BaseException:
            self.load_state_dict(before)
            raise

    def along(self, step: int, geometry: Geometry) -> dict[str, Any] | None:
        """The measurement along the last update as JSON; None without a step, or if it moved nothing.

        Beside the rotation stands that in equilibrium, which the geometry has on a scale-invariant loss.

        Raises:
            PluginError: the optimizer moved the weights outside its `step`, or hides its `step` from hooks.
        """
        if self.observer is None:
            return None
        spec, group = self.experiment.spec, self.objective.process_group
        if step and (mistake := self.observer.mistake()):
            raise named_error(entry(spec.optimizer), f"{mistake}, or leave out --along")
        losses = group.shard(self.objective.chunk_losses())
        update = self.observer.measure(losses, all_reduce=group.all_reduce_vector)
        self.observer.expect(spec.every == 1 or step + 1 == spec.steps)
        invariant, lr = self.experiment.verdict.invariant, self.experiment.optimizer.values["lr"]
        angle = equilibrium_rotation(geometry, lr) if invariant else None
        return update and replace(update, equilibrium_rotation=angle).as_record()

    def _check(self) -> None:
        """At the first record: is the operator the second derivative of the loss?"""
        if not self.checked:
            chunks = self.objective.process_group.shard(self.objective.chunk_losses())
            verdict = check_loss(chunks, self.objective.space.tensors)
            if verdict != PASSED:
                self.on_message(f"the second derivatives of this network were {verdict}")
            self.checked = True

    def _measure(
        self, probes: ProbeSet, geometry: Geometry, suffix: str = "", *, first: bool = False
    ) -> Readings:
        hessian = self.objective.hessian()
        operator, weights = HookedOperator(hessian, self.before_product), self.objective.space.weights()
        readings = probes(operator, weights, geometry)
        self.objective.kept_graphs = hessian.hvp
        if hessian.ran_out_of_memory:
            self.objective.hvp = "rebuilt"
            self.on_message(
                "the graphs of the gradients do not fit in memory; they are now rebuilt for every product"
            )
        if first and self.experiment.spec.reading == "sampled" and (reason := lanczos_instead(readings)):
            self.on_message(reason)
        return {name + suffix: reading.as_record() for name, reading in readings.items()}

    def _at_midpoint(self, geometry: Geometry) -> Readings:
        if not self.experiment.spec.midpoint:
            return {}
        space = self.objective.space
        self.history.push(space.weights())
        if (point := self.history.midpoint) is None:
            return {}
        with moved_to(space, point):
            return self._measure(self.midpoint_probes, geometry, MIDPOINT)

    def _of_batches(self, step: int, geometry: Geometry) -> Readings:
        spec, readings = self.experiment.spec, Readings()
        if spec.batch_sharpness is None:
            return readings
        batches = self.objective.sample_batches(spec.batch_sharpness, spec.seed * 1_000_003 + step)
        for view in self.variant_views:
            try:
                reading = batch_sharpness(
                    self._watched(batches),
                    self.objective.space.tensors,
                    geometry,
                    view=view,
                    all_reduce=self.objective.process_group.all_reduce_vector,
                )
                readings[view + BATCH] = reading.as_record()
            except FloatingPointError:  # a mini-batch whose loss and gradient are 0
                readings[view + BATCH] = None
        return readings

    def _watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:  # a gradient and a product each
            self.before_product()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The state that the next measurements depend on."""
        return {  # former names as keys: stored checkpoints have them
            "panel": self.probes.state_dict(),
            "middle": self.midpoint_probes.state_dict(),
            "trail": self.history.state_dict(),
            "mode": self.objective.hvp,
            **({"update": self.observer.state_dict()} if self.observer else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; graphs that did not fit in memory are not retained again."""
        self.checked = True
        self.probes.load_state_dict(state["panel"])
        self.midpoint_probes.load_state_dict(state["middle"])
        self.history.load_state_dict(state["trail"])
        if self.observer:
            self.observer.load_state_dict(state["update"])
        if state["mode"] == "rebuilt":
            self.objective.hvp = "rebuilt"
