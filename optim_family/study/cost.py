"""Estimate the cost of a run: a new process times steps and Hessian-vector products on part of its data.

    seconds ≈ start + steps · step + records · record
    record  = places · Σ products · product + evaluation + batches · views · quotient

step: a gradient and the optimizer's step; places: the weights, and the midpoint where it is measured; the sum
is over views that differ by more than ρ²; batches: the mini-batches of batch sharpness. The products of a
reading vary twofold either way with the spectrum.

`python -m optim_family.study.cost` reads a specification on stdin and writes JSON to stdout.
"""

import json
import resource
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, final

from optim_family.errors import OptimFamilyError, one_line
from optim_family.sharpness.views import VIEWS
from optim_family.training.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from optim_family.training.experiment import Experiment

IMAGES: Final = 1000  # at most; the cost is proportional to the number of images
# Hessian-vector products of a reading: the mean of 159 of gd and rmsprop on bn_mlp and bn_cnn, each 9 to 29.
PRODUCTS: Final = 15
_REPEATS: Final = 3


@final
@dataclass(frozen=True)
class Cost:
    """The cost of a run on this machine; `mistake` says why the run is impossible.

    Attributes:
        trained: number of trained weights.
        seconds: wall time.
        bytes: peak memory of the estimate.
    """

    trained: int = 0
    seconds: float = 0.0
    bytes: int = 0
    mistake: str = ""


def cost(spec: RunSpec) -> Cost:
    """Estimate the cost of a run in a new process."""
    command = [sys.executable, "-m", "optim_family.study.cost"]
    process = subprocess.run(command, input=spec.model_dump_json(), capture_output=True, text=True)
    if process.returncode:
        return Cost(mistake=process.stderr.strip().rpartition("\n")[2])
    return Cost(**json.loads(process.stdout))


@final
@dataclass(frozen=True)
class Timing:
    """Estimated seconds of the parts of a run on this machine.

    Attributes:
        step: one step.
        reading: one reading, on average over the views.
        record: one record: all readings, batch sharpness and evaluation.
    """

    step: float
    reading: float
    record: float

    def total(self, spec: RunSpec) -> float:
        """Seconds of all steps and records of a run."""
        return spec.steps * self.step + spec.records * self.record


def measure(spec: RunSpec) -> Cost:
    """Estimate the cost of a run in this process.

    Raises:
        OptimFamilyError: the run is impossible.
    """
    begin = time.perf_counter()

    from optim_family.curvature.precision import deterministic, full_precision
    from optim_family.data import datasets
    from optim_family.training.experiment import build_experiment

    images = len(datasets.load(spec.data, limit=spec.limit, seed=spec.seed).y_train)
    with full_precision(), deterministic():
        experiment = build_experiment(part_of(spec, images))
        start = time.perf_counter() - begin
        timing = time_parts(experiment, images)
    space = experiment.objective.space
    return Cost(space.dim, start + timing.total(spec), _memory(space.tensors[0].device))


def time_parts(experiment: "Experiment", images: int) -> Timing:
    """Time what a run consists of; the optimizer takes a few steps.

    Args:
        experiment: of the run, or of a part of its images.
        images: number of training images of the run.

    Raises:
        PluginError: the optimizer raises an exception.
    """
    import torch

    from optim_family.sharpness.generalized import BUDGET

    spec, objective = experiment.spec, experiment.objective
    hessian, direction = objective.hessian(), torch.randn_like(objective.space.weights())
    product = _seconds(lambda: (hessian @ direction)[0])
    evaluation = _seconds(lambda: objective.evaluate().train_loss)
    quotients = _quotients(experiment)
    step = _seconds(lambda: _step(experiment))
    whole = images / objective.size
    batch = whole if spec.batch_size is None else 1
    kinds = {VIEWS[view].kind: VIEWS[view] for view in experiment.views}.values()
    products = [
        (spec.budget or BUDGET) if view.generalized else PRODUCTS
        for view in kinds
        for _ in range(1 + (spec.midpoint and not view.generalized))
    ]
    reading = whole * product * sum(products) / len(products)
    record = len(products) * reading + whole * evaluation + batch * quotients
    return Timing(batch * step, reading, record)


def _step(experiment: "Experiment") -> "torch.Tensor":
    """The loss of one step, which the optimizer takes."""
    loss = experiment.objective.gradient(0)
    experiment.optimizer_step(0, loss)
    return loss


def _quotients(experiment: "Experiment") -> float:
    """Seconds for the batch sharpness of one record."""
    from optim_family.sharpness.batch_sharpness import batch_sharpness

    spec, objective = experiment.spec, experiment.objective
    if spec.batch_sharpness is None:
        return 0.0
    geometry, batch = experiment.geometry(), objective.sample_batches(1, 0)
    one = _seconds(lambda: batch_sharpness(batch, objective.space.tensors, geometry).value)
    batches = spec.batch_sharpness if spec.batch_size else 1
    return batches * len(experiment.views) * one


def part_of(spec: RunSpec, images: int) -> RunSpec:
    """The run on the images to time, at most about `IMAGES` of them.

    Their number is a multiple of the mini-batch or the ghost batch, which must divide it.
    """
    unit = spec.batch_size or spec.ghost_batch or IMAGES
    return spec.model_copy(update={"limit": min(images, unit * max(1, IMAGES // unit))})


def _seconds(work: Callable[[], Any]) -> float:
    """The shortest of several times that a number takes, after a warm-up; float() waits for the GPU."""
    return min(timeit.repeat(lambda: float(work()), number=1, repeat=1 + _REPEATS)[1:])


def _memory(device: "torch.device") -> int:
    """Peak memory of this process in bytes: of its GPU if it uses one."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    """Write the cost of the run on stdin as JSON; return the exit code."""
    from optim_family.study.worker import resolve_device

    try:
        spec = RunSpec.model_validate_json(sys.stdin.read())
        print(json.dumps(asdict(measure(resolve_device(spec)))))
    except OptimFamilyError as error:
        print(one_line(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
