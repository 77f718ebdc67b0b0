"""How a run is resumed: what a checkpoint holds, and what must be as it was."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from optim_family.errors import UsageError
from optim_family.registry import plugin_errors
from optim_family.runs.atomic_files import diff_specs
from optim_family.runs.layout import PROVENANCE
from optim_family.runs.run import read_run
from optim_family.runs.store import Store
from optim_family.training import checkpoint
from optim_family.training.experiment import Experiment
from optim_family.training.measurements import Measurements
from optim_family.training.spec import MemoryFormat


@final
@dataclass
class TrainingState:
    """How far a run is, beyond model, optimizer and measurements.

    Attributes:
        step: optimizer steps taken.
        recorded: the step of the last record, −1 before the first.
        tau: τ = Σ ηλ over the steps taken.
        peak: the highest training loss since the last record.
        elapsed: seconds that earlier processes spent on the run.
    """

    step: int = 0
    recorded: int = -1
    tau: float = 0.0
    peak: float = -math.inf
    elapsed: float = 0.0


@final
class Checkpoints:
    """Saves and loads the state of one experiment; holds the training state that it loaded."""

    def __init__(
        self,
        experiment: Experiment,
        measurements: Measurements,
        store: Store,
        on_message: Callable[[str], None],
    ) -> None:
        self.experiment, self.measurements, self.store = experiment, measurements, store
        self.on_message, self.state = on_message, TrainingState()

    def save(self, elapsed: float) -> None:
        """Write a checkpoint of the state before the present step.

        Args:
            elapsed: seconds spent on the run so far.

        Raises:
            PluginError: the optimizer has no state_dict() that can be saved.
        """
        experiment, state = self.experiment, self.state
        tree = {
            "model": experiment.objective.model.state_dict(),
            "optimizer": experiment.optimizer_state(),
            "instruments": self.measurements.state_dict(),
            "recorded": state.recorded,
            "tau": state.tau,
            "peak": state.peak,
            "elapsed": elapsed,
            "spec": experiment.spec.key,
            "data": experiment.objective.data.sha256,
        }
        if experiment.objective.process_group.is_main_process:
            # nothing else in the tree can fail
            with plugin_errors(experiment.spec.optimizer, "returned a state_dict() that cannot be saved"):
                checkpoint.save(self.store.checkpoints, state.step, tree)

    def load(self, resume: bool) -> TrainingState:
        """Load the last checkpoint of the run, if there is one.

        Raises:
            UsageError: there is one, and `resume` is not set; or the data has changed since.
        """
        spec, objective, path = self.experiment.spec, self.experiment.objective, self.store.path
        group, state = objective.process_group, self.state
        group.require_equal("specification or data", [spec.key, objective.data.sha256])
        latest = group.broadcast(
            checkpoint.load_latest(self.store.checkpoints, self.on_message, spec.key)
            if group.is_main_process
            else None
        )
        if latest is None:
            return state
        state.step, tree = latest
        if not resume:
            raise UsageError(
                f"{path} holds this run up to step {state.step} of {spec.steps}; add --resume to continue it"
            )
        if tree["data"] != objective.data.sha256:
            raise UsageError(f"{path} was begun with other data; use another --out")
        objective.model.load_state_dict(tree["model"])
        with plugin_errors(spec.optimizer, "failed in load_state_dict()"):
            self.experiment.optimizer.load_state_dict(tree["optimizer"])
        self.measurements.load_state_dict(tree["instruments"])
        state.recorded, state.tau = tree["recorded"], tree["tau"]
        state.peak, state.elapsed = tree["peak"], tree["elapsed"]
        return state


def memory_format_of(out: Path) -> MemoryFormat | None:
    """The layout of images that the run in `out` began with; None if there is no run."""
    if not (out / PROVENANCE).exists():
        return None
    # Runs of versions without the choice have contiguous images.
    begun_with: MemoryFormat = read_run(out).provenance.get("memory_format", "contiguous")
    return begun_with


def write_provenance(
    experiment: Experiment, store: Store, state: TrainingState, on_message: Callable[[str], None]
) -> bool:
    """Write what the numbers depend on, and report what has changed since an earlier part of the run.

    Returns:
        Whether as many processes share the sums as before, so that records are bitwise identical.
    """
    group = experiment.objective.process_group
    if not group.is_main_process:
        return True
    now, before = experiment.provenance(), read_run(store.path).provenance
    changes = diff_specs(now, before) if state.step and before else []
    if changes:
        on_message(
            f"resumed under other conditions ({'; '.join(changes)}); the last bits may differ from now on"
        )
    store.write(PROVENANCE, now)
    return bool(before.get("processes", group.size) == group.size)
