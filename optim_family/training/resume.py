"""The checkpoints of a run, and the conditions under which it is resumed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from optim_family.errors import UsageError
from optim_family.registry import plugin_errors
from optim_family.runs.atomic_files import diff_specs
from optim_family.runs.layout import CHECKPOINTS, PROVENANCE
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.training import checkpoint
from optim_family.training.experiment import Experiment
from optim_family.training.measurements import Measurements
from optim_family.training.spec import MemoryFormat


@final
@dataclass
class TrainingState:
    """The progress of a run, beyond the state of model, optimizer and measurements.

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
    """Saves and loads the state of one experiment; holds its training state."""

    def __init__(
        self,
        experiment: Experiment,
        measurements: Measurements,
        path: Path,
        on_message: Callable[[str], None],
    ) -> None:
        self.experiment, self.measurements, self.path = experiment, measurements, path
        self.on_message, self.state = on_message, TrainingState()

    def save(self, elapsed: float) -> None:
        """Write a checkpoint of the state before the present step, `elapsed` seconds into the run.

        Raises:
            PluginError: the optimizer has no state_dict() that can be saved.
        """
        experiment, state, name = self.experiment, self.state, self.experiment.spec.optimizer
        with plugin_errors(name, "failed in state_dict()"):
            optimizer = experiment.optimizer.state_dict()
        tree = {
            "model": experiment.objective.model.state_dict(),
            "optimizer": optimizer,
            "instruments": self.measurements.state_dict(),
            "recorded": state.recorded,
            "tau": state.tau,
            "peak": state.peak,
            "elapsed": elapsed,
            "spec": experiment.spec.key,
            "data": experiment.objective.data.sha256,
        }
        if experiment.objective.process_group.is_main_process:
            # the rest of the tree can always be saved
            with plugin_errors(name, "returned a state_dict() that cannot be saved"):
                checkpoint.save(self.path / CHECKPOINTS, state.step, tree)

    def load(self, resume: bool) -> None:
        """Load the last checkpoint of the run, if there is one.

        Raises:
            UsageError: there is one, and `resume` is not set; or the data has changed since.
        """
        spec, objective, path = self.experiment.spec, self.experiment.objective, self.path
        group, state = objective.process_group, self.state
        group.require_equal("specification or data", [spec.key, objective.data.sha256])
        latest = group.broadcast(
            checkpoint.load_latest(path / CHECKPOINTS, self.on_message, spec.key)
            if group.is_main_process
            else None
        )
        if latest is None:
            return
        state.step, tree = latest
        if not resume:
            raise UsageError(
                f"{path} holds this run up to step {state.step} of {spec.steps}; add --resume to continue it"
            )
        if tree["data"] != objective.data.sha256:
            raise UsageError(f"{path} was started with other data; use another --out")
        objective.model.load_state_dict(tree["model"])
        with plugin_errors(spec.optimizer, "failed in load_state_dict()"):
            self.experiment.optimizer.load_state_dict(tree["optimizer"])
        self.measurements.load_state_dict(tree["instruments"])
        state.recorded, state.tau = tree["recorded"], tree["tau"]
        state.peak, state.elapsed = tree["peak"], tree["elapsed"]


def memory_format_of(out: Path) -> MemoryFormat | None:
    """The layout of images in the earlier part of the run in `out`; None if there is no run."""
    if not (out / PROVENANCE).exists():
        return None
    # Versions without this option used contiguous images.
    earlier: MemoryFormat = read_run(out).provenance.get("memory_format", "contiguous")
    return earlier


def write_provenance(
    experiment: Experiment, store: RunStore | None, state: TrainingState, on_message: Callable[[str], None]
) -> bool:
    """Write provenance.json, and report its changes since an earlier part of the run.

    It is written again, and reported, where CUDA graphs stop.

    Returns:
        Whether the number of processes is unchanged, so that repeated records are bitwise identical.
    """
    if store is None:
        return True
    group, replay = experiment.objective.process_group, experiment.objective.replay
    if replay:

        def rewrite(line: str) -> None:
            on_message(line)
            store.write(PROVENANCE, experiment.provenance())

        replay.on_stop = rewrite
    now, before = experiment.provenance(), read_run(store.path).provenance
    # A replay changes no bit, so that it may begin or end with any part of a run.
    changed = diff_specs(now, before) if state.step and before else []
    changes = [change for change in changed if not change.startswith("cuda_graphs")]
    if changes:
        on_message(
            f"resumed under other conditions ({'; '.join(changes)}); the last bits may differ from now on"
        )
    store.write(PROVENANCE, now)
    return bool(before.get("processes", group.size) == group.size)
