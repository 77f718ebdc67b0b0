"""Export runs to other tools: TensorBoard, MLflow, Weights & Biases, Parquet.

Every tool gets the specification of a run, `hyper.lr`; its records by step and seconds since the start,
`train_loss` and `spherical/ratio`; and its results, `result/test_accuracy`.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from optim_family.analysis import run_summary
from optim_family.errors import CorruptError, OptimFamilyError, UsageError, one_line
from optim_family.runs import readings_table
from optim_family.runs.atomic_files import INVALID_PATH, make_folder
from optim_family.runs.labels import flat
from optim_family.runs.run import ALONG, Run

PROJECT: Final = "optim-family"
# Not exported: the axes of every curve, and what judges a search rather than the sharpness.
_AXES: Final = frozenset({"step", "elapsed"})
_SEARCH: Final = frozenset({"residual", "bound", "seconds", "converged", "sample_share", "audit", "rounding"})
_MOST_METRICS: Final = 1000  # in one call of MLflow


Point = tuple[int, float, Mapping[str, float]]  # step, seconds, and the finite numbers of a record by name
Send = Callable[[Sequence[Run], Path, str], list[str]]  # runs, folder, project → where the runs are


def export(runs: Sequence[Run], to: str, folder: Path, project: str = PROJECT) -> list[str]:
    """Export runs to a tool.

    Args:
        runs: as `runs.run.read_run` returns them.
        to: a key of `TARGETS`.
        folder: for TensorBoard and Parquet; the others use their own settings.
        project: of W&B; the experiment of MLflow.

    Returns:
        Where the runs are, as the tool names it.

    Raises:
        UsageError: the extra is not installed, the folder holds such an export already, or the user may not
            write it.
        CorruptError: the folder cannot be written.
        OptimFamilyError: the tool fails.
    """
    module, send = TARGETS[to]
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"--to {to} needs {module}, which is not installed; pip install 'optim-family[{to}]'"
        )
    try:
        return send(runs, folder, project)
    except OptimFamilyError:
        raise
    except OSError as error:
        where = error.filename or folder
        kind = UsageError if error.errno in INVALID_PATH else CorruptError
        raise kind(f"{where} cannot be written ({error.strerror}); choose another folder") from error
    except Exception as error:
        raise OptimFamilyError(f"{to} failed: {type(error).__name__}: {one_line(error)}") from error


def parameters(run: Run) -> dict[str, Any]:
    """The specification of a run, flat, without fields that are None."""
    fields = flat(run.spec).items()
    return {k: "+".join(v) if isinstance(v, list) else v for k, v in fields if v is not None}


def points(run: Run) -> Iterator[Point]:
    """Every record of a run."""
    for record in run.records:
        numbers = {name: value for name, value in record.items() if name not in _AXES}
        for view, reading in (record.get("views") or {}).items():
            numbers |= {f"{view}/{n}": value for n, value in (reading or {}).items() if n not in _SEARCH}
        numbers |= {f"{ALONG}/{n}": value for n, value in (record.get(ALONG) or {}).items()}
        yield record["step"], record["elapsed"], _finite(numbers)


def results(run: Run) -> dict[str, float]:
    """The numbers of the summary of a run."""
    summary = run_summary.summary(run)
    views = {f"{view}/{name}": x for view, s in summary["views"].items() for name, x in s.items()}
    return {f"result/{name}": x for name, x in _finite({**summary, **views}).items()}


def _finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {k: x for k, x in numbers.items() if isinstance(x, int | float) and math.isfinite(x)}


def _tensorboard(runs: Sequence[Run], folder: Path, project: str) -> list[str]:
    """One folder a run, hyper-parameters and results as HPARAMS; wall time is that since its start."""
    from torch.utils.tensorboard import SummaryWriter

    places = _places(runs, folder)
    if existing := [str(place) for place in places if place.exists()]:
        raise UsageError(f"{existing[0]} exists already; TensorBoard would mix the two: choose another --out")
    for run, place in zip(runs, places, strict=True):
        with SummaryWriter(str(place)) as writer:
            for step, seconds, numbers in points(run):
                for name, number in numbers.items():
                    writer.add_scalar(name, number, step, seconds)
            writer.add_hparams(parameters(run), results(run), run_name=".")
    return list(map(str, places))


def _places(runs: Sequence[Run], folder: Path) -> list[Path]:
    """A folder for each run, by its name; numbered if two have the same name."""
    names = [run.path.name for run in runs]
    return [folder / (f"{n}-{i}" if names.count(n) > 1 else n) for i, n in enumerate(names)]


def _mlflow(runs: Sequence[Run], folder: Path, project: str) -> list[str]:
    """All in one experiment, at MLFLOW_TRACKING_URI."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient()
    known = client.get_experiment_by_name(project)
    experiment = known.experiment_id if known else client.create_experiment(project)
    addresses = []
    for run in runs:
        run_id = client.create_run(experiment, run_name=run.path.name).info.run_id
        client.log_batch(run_id, params=[Param(name, str(value)) for name, value in parameters(run).items()])
        last = run.records[-1]["step"] if run.records else 0
        final: Point = last, run.status.get("seconds", 0.0), results(run)
        metrics = [
            Metric(name, number, int(1000 * seconds), step)
            for step, seconds, numbers in (*points(run), final)
            for name, number in numbers.items()
        ]
        for i in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[i : i + _MOST_METRICS])
        client.set_terminated(run_id, "FINISHED" if run.status.get("status") == "done" else "FAILED")
        addresses.append(f"{project}/{run_id}")
    return addresses


def _wandb(runs: Sequence[Run], folder: Path, project: str) -> list[str]:
    """All in one project, online after `wandb login`, or WANDB_MODE=offline."""
    import wandb

    addresses, quiet = [], wandb.Settings(console="off")  # our output is not the run's
    for run in runs:
        options = {"project": project, "name": run.path.name, "config": parameters(run)}
        with wandb.init(**options, settings=quiet) as tracked:
            for step, seconds, numbers in points(run):
                tracked.log({**numbers, "seconds": seconds}, step=step)
            tracked.summary.update(results(run))
            addresses.append(tracked.url or str(Path(tracked.dir).parent))
    return addresses


def _parquet(runs: Sequence[Run], folder: Path, project: str) -> list[str]:
    """All of them in one file: the table of `load_runs`."""
    make_folder(folder)
    path = folder / "runs.parquet"
    readings_table.frame(runs).to_parquet(path, engine="pyarrow", index=False)
    return [str(path)]


# Each tool: the module that the extra of its name installs, and the function that exports.
TARGETS: Final[Mapping[str, tuple[str, Send]]] = {
    "tensorboard": ("tensorboard", _tensorboard),
    "mlflow": ("mlflow", _mlflow),
    "wandb": ("wandb", _wandb),
    "parquet": ("pyarrow", _parquet),
}
