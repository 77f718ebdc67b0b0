"""Load: a study of many short runs, and one run of very many records.

    python results/reliability/load.py runs 1000      # 16 at a time, a second each
    python results/reliability/load.py records 1000000

The runs are written by a stand-in for training that takes a second and imports no torch: what is loaded here
is launcher, store, and report. The report is written, and the records are read and drawn, by several
processes, one after the other; of each number the median is given, and the lowest and highest. One JSON
object is printed.
"""

import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import psutil

from optim_family.analysis import study_results
from optim_family.analysis.claims import CLAIMS
from optim_family.figures import run_figure, style
from optim_family.runs.layout import LOG, STATUS
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.study import execution, report
from optim_family.study.launchers import Local
from optim_family.study.spec import StudySpec
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

REPEATS = 7

STAND_IN = """
import json, sys, time
from pathlib import Path
from optim_family.runs.layout import STATUS
from optim_family.runs.store import RunStore
begin, spec = time.monotonic(), json.loads(sys.stdin.readline())
with RunStore.open(Path(sys.argv[1]), spec) as store:
    for step in range(0, spec["steps"] + 1, spec["every"]):
        view = {"value": 10.0 + step, "threshold": 12.0, "ratio": (10.0 + step) / 12.0, "residual": 0.1,
                "error": 0.01, "products": 9, "seconds": 0.1, "converged": True}
        store.append({"step": step, "tau": step / 10, "train_loss": 1 / (1 + step), "peak_loss": 1.0,
                      "train_accuracy": 0.9, "test_accuracy": 0.8, "weight_norm": 1.0, "gradient_norm": 1.0,
                      "effective_lr": 0.1, "lr": 0.1, "elapsed": 0.1, "views": {"spherical": view}})
        time.sleep(max(0.0, begin + (step + 1) / (spec["steps"] + 1) - time.monotonic()))
    store.write(STATUS, {"status": "done", "step": spec["steps"], "steps": spec["steps"]})
"""


def crowd(count: int) -> StudySpec:
    """A study of so many runs."""
    specs = tuple(
        RunSpec(
            optimizer="gd",
            hyper={"lr": 0.1 * (1 + i % 5), "weight_decay": 1e-3},
            seed=i // 5,
            steps=10,
            every=2,
        )
        for i in range(count)
    )
    return StudySpec("load", "Does it bear the load?", {"edge": CLAIMS["edge"]}, specs, "")


def runs(count: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory of a study of so many runs, and of its report."""
    jobs, memory, ticks = execution.jobs(crowd(count), folder), [], itertools.count()

    def look() -> None:
        if next(ticks) % 100 == 0:
            memory.append(psutil.Process().memory_info().rss)

    clock = _Clock()
    failed = execution.run_study(
        jobs,
        Local(16, (sys.executable, "-c", STAND_IN)),
        stop=StopSignal(),
        on_result=lambda result: None,
        on_poll=look,
    )
    carried = clock.lap()
    return {
        "runs": count,
        "failed": len(failed),
        "the runs": carried,
        "memory after a tenth, bytes": memory[len(memory) // 10],
        "memory at the end, bytes": memory[-1],
    } | _repeated(partial(reported, count), folder)


def reported(count: int, folder: Path) -> dict[str, Any]:
    """Seconds to read so many runs and to write their report, as `study report` does."""
    wanted, clock = crowd(count), _Clock()
    present = execution.runs(execution.jobs(wanted, folder))
    report.write(wanted, study_results.evaluate_study(wanted.claims, present), folder / "report")
    done = sum(run.status["status"] == "done" for run in present)
    return {"present and done": done, "the report": clock.lap()}


def records(count: int, folder: Path) -> dict[str, Any]:
    """Seconds to write, read and draw a run of so many records."""
    spec = RunSpec(optimizer="gd", hyper={"lr": 0.1, "weight_decay": 1e-3}, steps=count, every=1)
    view = {"value": 1.0, "threshold": 2.0, "ratio": 0.5, "error": 0.01, "converged": True}
    clock = _Clock()
    with RunStore.open(folder / "run", spec.model_dump(mode="json")) as store:
        for step in range(count):
            numbers = {"tau": step / 1e4, "train_loss": 1 / (1 + step), "peak_loss": 1 / (1 + step)}
            accuracies = {"train_accuracy": 1.0, "test_accuracy": 0.9, "elapsed": step / 100}
            store.append({"step": step, **numbers, **accuracies, "views": {"spherical": view}})
        store.write(STATUS, {"status": "done", "step": count - 1, "steps": count})
    written = clock.lap()
    size = (folder / "run" / LOG).stat().st_size
    return {"bytes": size, "to write": written} | _repeated(shown, folder)


def shown(folder: Path) -> dict[str, Any]:
    """Seconds and memory of reading that run and drawing it; and of parsing its lines, for comparison."""
    clock = _Clock()
    run = read_run(folder / "run")
    loaded = clock.lap()
    style.save(run_figure.figure([run]), folder)
    drawn = clock.lap()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (folder / "run" / LOG).open("rb") as lines:
        for line in lines:
            orjson.loads(line)
    return {
        "records": run.columns.count,
        "to load": loaded,
        "the figure": drawn,
        "peak memory, bytes": peak,
        "to parse each line and forget it": clock.lap(),
    }


def _repeated(work: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What several processes found, one after the other."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:
        found = list(fresh.map(work, [folder] * REPEATS))
    return {"repeats": REPEATS} | {name: _spread([one[name] for one in found]) for name in found[0]}


def _spread(found: list[Any]) -> Any:
    """The median with the lowest and highest; of one value alone that value, of several numbers each."""
    if isinstance(found[0], dict):
        return {name: _spread([one[name] for one in found]) for name in found[0]}
    if len(set(found)) == 1:
        return found[0]
    return {"median": statistics.median(found), "from": min(found), "to": max(found)}


class _Clock:
    """Remembers the last lap: wall time, which others on the machine lengthen, and processor time."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def lap(self) -> dict[str, float]:
        """Seconds since the last one."""
        wall, cpu = time.perf_counter(), time.process_time()
        lap = {"seconds": round(wall - self.wall, 2), "processor seconds": round(cpu - self.cpu, 2)}
        self.wall, self.cpu = wall, cpu
        return lap


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        print(
            json.dumps(
                {"runs": runs, "records": records}[sys.argv[1]](int(sys.argv[2]), Path(name)), indent=2
            )
        )
