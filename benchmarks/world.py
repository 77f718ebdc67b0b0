"""One run on 1 and on 2 processes: seconds and bytes sent, for a step and for a reading.

`bn_cnn` on 1,000 digits in ghost batches of 100, full batch, one thread a process. Every process counts
its bytes: an all-reduce of n bytes sends 2 n (P − 1)/P bytes on the wire of each of P processes.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from optim_family.sharpness.probe_set import ProbeSet
from optim_family.training.experiment import build_experiment
from optim_family.training.process_group import ProcessGroup, TorchrunGroup, process_group
from optim_family.training.spec import RunSpec

STEPS, READINGS = 20, 3
SPEC = RunSpec(
    optimizer="gd",
    hyper={"lr": 0.1, "weight_decay": 1e-3, "momentum": 0.0},
    model="bn_cnn",
    limit=1000,
    ghost_batch=100,
    hvp="retained",
)


def work() -> None:
    """The work of each process; the main process prints its time."""
    with process_group() as group:
        experiment = build_experiment(SPEC, group)
        step, steps = _measured(
            group, lambda: experiment.optimizer_step(0, experiment.objective.gradient(0)), STEPS
        )
        probes, products = ProbeSet(("spherical",)), []

        def read() -> None:
            weights, geometry = experiment.objective.space.weights(), experiment.geometry()
            products.append(probes(experiment.objective.hessian(), weights, geometry)["spherical"].products)

        reading, readings = _measured(group, read, READINGS)
        if group.is_main_process:
            print(
                f"  {group.size} processes  {1e3 * step:8.1f} ms and {steps:9,.0f} bytes a step  "
                f"{1e3 * reading:8.1f} ms and {readings:11,.0f} bytes a reading of "
                f"{statistics.mean(products):.0f} products (d = {experiment.objective.space.dim:,})"
            )


def _measured(group: ProcessGroup, do: Callable[[], object], times: int) -> tuple[float, float]:
    """Median seconds and mean bytes of one time; the first one is not counted."""
    do()
    sent, seconds = _sent(group), []
    for _ in range(times):
        begin = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), (_sent(group) - sent) / times


def _sent(group: ProcessGroup) -> int:
    return group.bytes_sent if isinstance(group, TorchrunGroup) else 0


def main() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with TemporaryDirectory() as logs:
        for processes in (1, 2):
            start = ("-m", "torch.distributed.run", "--standalone", "--log-dir", logs)
            where = ("--nproc-per-node", str(processes), str(Path(__file__)))
            subprocess.run([sys.executable, *start, *where], env=environment, check=True)


if __name__ == "__main__":
    work()
