"""Estimate the cost of a run: a new process times gradients and Hessian-vector products on part of its data.

    seconds ≈ start + steps · gradient
              + records · (places · kinds · PRODUCTS · product + evaluation + batches · views · quotient)

places: the weights, and the midpoint where it is measured; kinds: views that differ by more than ρ²; batches:
the mini-batches of batch sharpness. The products of a reading vary twofold either way with the spectrum.

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
from optim_family.sharpness.views import unscaled_view
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


def measure(spec: RunSpec) -> Cost:
    """Estimate the cost of a run in this process.

    Raises:
        OptimFamilyError: the run is impossible.
    """
    begin = time.perf_counter()
    import torch

    from optim_family.curvature.precision import deterministic, full_precision
    from optim_family.data import datasets
    from optim_family.training.experiment import build_experiment

    images = len(datasets.load(spec.data, limit=spec.limit, seed=spec.seed).y_train)
    with full_precision(), deterministic():
        experiment = build_experiment(spec.model_copy(update={"limit": _part(spec, images)}))
        objective, hessian = experiment.objective, experiment.objective.hessian()
        direction = torch.randn_like(objective.space.weights())
        start = time.perf_counter() - begin
        gradient = _seconds(lambda: objective.gradient(0))
        product = _seconds(lambda: (hessian @ direction)[0])
        evaluation = _seconds(lambda: objective.evaluate().train_loss)
        quotients = _quotients(experiment)
    whole = images / objective.size
    batch = whole if spec.batch_size is None else 1
    readings = len({unscaled_view(view) for view in experiment.views}) * (1 + spec.midpoint)
    record = whole * (readings * PRODUCTS * product + evaluation) + batch * quotients
    seconds = start + spec.steps * batch * gradient + (1 + spec.steps // spec.every) * record
    return Cost(objective.space.dim, seconds, _memory(objective.space.tensors[0].device))


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


def _part(spec: RunSpec, images: int) -> int:
    """Number of images to time: a multiple of the mini-batch or the ghost batch, which must divide it."""
    unit = spec.batch_size or spec.ghost_batch or IMAGES
    return min(images, unit * max(1, IMAGES // unit))


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
