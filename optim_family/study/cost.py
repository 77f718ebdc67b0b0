"""What a run would cost: a few gradients and Hessian products on part of its data, in a new process.

    seconds ≈ start + steps · gradient
              + records · (places · kinds · PRODUCTS · product + evaluation + batches · views · quotient)

places: the weights, and their midpoint if asked for; kinds: views that do not differ by ρ² alone; batches:
those along whose gradients is measured.

`python -m optim_family.study.cost` reads a specification on stdin, and answers with JSON.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, final

from optim_family.errors import OptimFamilyError, one_line
from optim_family.sharpness.views import unscaled_view
from optim_family.training.spec import RunSpec

if TYPE_CHECKING:
    from optim_family.training.experiment import Experiment

IMAGES: Final = 1000  # at most; the cost of more is in proportion
PRODUCTS: Final = 8  # of a reading that starts from the last eigenvector, about
_REPEATS: Final = 3


@final
@dataclass(frozen=True)
class Cost:
    """What a run would take on this machine; a `mistake` says why it cannot be carried out at all."""

    trained: int = 0
    seconds: float = 0.0
    bytes: int = 0
    mistake: str = ""


def cost(spec: RunSpec) -> Cost:
    """Estimate the cost of a run; its memory is the most that the trial took."""
    done = subprocess.run(
        [sys.executable, "-m", "optim_family.study.cost"],
        input=spec.model_dump_json(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return Cost(mistake=done.stderr.strip().rpartition("\n")[2])
    return Cost(**json.loads(done.stdout))


def measure(spec: RunSpec) -> Cost:
    """Estimate it in this process.

    Raises:
        OptimFamilyError: it cannot be carried out.
    """
    begin = time.perf_counter()
    import torch

    from optim_family.curvature.precision import full_precision
    from optim_family.data import datasets
    from optim_family.training.experiment import build_experiment

    images = len(datasets.load(spec.data, limit=spec.limit, seed=spec.seed).y_train)
    part = spec.model_copy(update={"limit": _part(spec, images)})
    with full_precision():
        experiment = build_experiment(part)
        objective, hessian = experiment.objective, experiment.objective.hessian()
        direction = torch.randn_like(objective.space.weights())
        start = time.perf_counter() - begin
        gradient = _seconds(lambda: objective.gradient(0))
        product = _seconds(lambda: (hessian @ direction)[0])
        evaluation = _seconds(lambda: objective.evaluate().train_loss)
        quotients = _quotients(experiment)
    more = images / objective.size
    of_batch = more if spec.batch_size is None else 1
    readings = len({unscaled_view(view) for view in experiment.views}) * (1 + spec.midpoint)
    record = more * (readings * PRODUCTS * product + evaluation) + of_batch * quotients
    seconds = start + spec.steps * of_batch * gradient + (1 + spec.steps // spec.every) * record
    return Cost(objective.space.dim, seconds, _memory(experiment.spec.device))


def _quotients(experiment: "Experiment") -> float:
    """Seconds that the mini-batches of a record take, each in every view."""
    from optim_family.sharpness.batch_sharpness import batch_sharpness

    spec, objective = experiment.spec, experiment.objective
    if spec.batch_sharpness is None:
        return 0.0
    geometry, batch = experiment.geometry(), objective.sample_batches(1, 0)
    one = _seconds(lambda: batch_sharpness(batch, objective.space.tensors, geometry).value)
    batches = spec.batch_sharpness if spec.batch_size else 1
    return batches * len(experiment.views) * one


def _part(spec: RunSpec, images: int) -> int:
    """So many images that the ghost batch and the mini-batch divide them."""
    unit = spec.batch_size or spec.ghost_batch or IMAGES
    return min(images, unit * max(1, IMAGES // unit))


def _seconds(work: Callable[[], Any]) -> float:
    """The least of several times that it takes to compute one number, after one that warms up."""
    times = []
    for _ in range(1 + _REPEATS):
        begin = time.perf_counter()
        float(work())  # a GPU has then finished
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _memory(device: str) -> int:
    """The most that this process has taken, in bytes; of the GPU's memory where it uses one."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    """Answer what stdin asks; the exit code."""
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
