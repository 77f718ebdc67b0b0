"""What `optim-family study` does once it knows which study is meant."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optim_family.analysis.claims import CLAIMS
from optim_family.cli.output import Output
from optim_family.cli.run_progress import duration
from optim_family.cli.study_progress import HEADERS, Progress, board
from optim_family.errors import OptimFamilyError, Stopped, UsageError
from optim_family.runs.labels import labels
from optim_family.study import execution as under_way
from optim_family.study.cost import Cost, cost
from optim_family.study.launchers import Ending, Launcher, Local, cores
from optim_family.study.spec import StudySpec
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

# Runs that differ in nothing of this take the same time.
_COSTLY = tuple(field for field in RunSpec.model_fields if field not in ("hyper", "seed", "rtol"))


def carry_out(
    study: StudySpec,
    folder: Path,
    workers: int | None,
    output: Output,
    start: Callable[[int], Launcher] | None = None,
) -> int:
    """Do what is left, then the report. Returns the exit code: 1 if runs failed."""
    jobs = under_way.jobs(study, folder)
    at_once = min(workers or _workers(study), len(jobs))
    progress = Progress(jobs, at_once)
    output.say(f"{study.name}: {len(jobs)} runs, {at_once} at a time, in {folder}")
    try:
        with StopSignal().install() as stop, board(progress, output.quiet) as shown:
            launcher = (start or Local)(at_once)
            failed = under_way.carry_out(jobs, launcher, stop=stop, tell=shown.tell, tick=shown.tick)
    except Stopped as error:
        raise type(error)(
            "stopped; what was under way has left checkpoints, the same command goes on"
        ) from None
    if len(failed) == len(jobs):
        raise OptimFamilyError(f"all {len(jobs)} runs failed; {failed[0].job.out}: {failed[0].words}")
    write_report(study, folder, folder / "report", output, failed)
    return 1 if failed else 0


def write_report(
    study: StudySpec, folder: Path, to: Path, output: Output, failed: Sequence[Ending] = ()
) -> None:
    """Write the report on the runs that have begun, and say what it says."""
    from optim_family.analysis import study_results
    from optim_family.study import report

    runs = [run for run in under_way.runs(under_way.jobs(study, folder)) if run.columns.count]
    if not runs:
        raise UsageError(
            f"no run of {study.name} with these settings has a record in {folder}; begin with "
            "`optim-family study run`, or give the --set and --only of those that have"
        )
    results = study_results.evaluate_study(study.claims, runs)
    page = report.write(study, results, to)
    if output.json:
        return output.data(
            {
                "study": study.name,
                "report": str(page),
                "findings": [asdict(result) for result in results.claim_results],
                "failed": {str(ending.job.out): ending.words for ending in failed},
            }
        )
    rows = [[of[0].verdict, statement, of[0].evidence] for statement, of in results.results_of_claims.items()]
    output.table(["verdict", "claim", "numbers"], rows)
    print(f"\nreport: {page}")


def preview(study: StudySpec, folder: Path, workers: int | None, output: Output) -> int:
    """Say which runs there are, and what is left would take. Returns the exit code: 2 if one cannot be."""
    jobs = under_way.jobs(study, folder)
    at_once = min(workers or _workers(study), len(jobs))
    states = [under_way.state(job) for job in jobs]
    output.say(f"{study.name}: {len(jobs)} runs in {folder}")
    costs = [asdict(each) for each in _costs(study.runs, output)]
    plan = [
        {"run": name, "folder": str(job.out), "state": state.status, **each}
        for name, job, state, each in zip(_names(study.runs), jobs, states, costs, strict=True)
    ]
    left = [each for each in plan if each["state"] not in under_way.FINISHED]
    total = {
        "runs": len(plan),
        "left": len(left),
        "workers": at_once,
        "threads": Local(at_once).threads,
        "seconds": sum(each["seconds"] for each in left) / at_once,
        "bytes": at_once * max(each["bytes"] for each in plan),
    }
    if output.json:
        output.data({"study": study.name, **total, "plan": plan})
    else:
        headers = ["run", "state", "trained parameters", "time", "memory"]
        output.table(headers, [_planned(each) for each in plan])
        print(
            f"\n{len(left)} of {len(plan)} runs to do in {folder}: {at_once} at a time, with "
            f"{total['threads']} threads each, about {duration(total['seconds'])} "
            f"and {_gigabytes(total['bytes'])} of memory"
        )
    return UsageError.exit_code if any(each["mistake"] for each in plan) else 0


def show_states(study: StudySpec, folder: Path, output: Output) -> None:
    """How far every run is."""
    progress = Progress(under_way.jobs(study, folder), 1)
    states = progress.look()
    if output.json:
        found = [
            {"run": str(s.job.out), "status": s.status, "step": s.step, "record": s.record} for s in states
        ]
        return output.data({"study": study.name, "runs": found})
    output.table(HEADERS, [progress.row(state) for state in states])
    print(f"\n{study.name} in {folder}: {progress.headline()}")


def show(study: StudySpec, folder: Path, output: Output) -> None:
    """Question, claims and runs."""
    names = _names(study.runs)
    if output.json:
        runs = [run.model_dump(mode="json") for run in study.runs]
        claims = {name: CLAIMS[name].statement for name in study.claims}
        return output.data({"name": study.name, "question": study.question, "claims": claims, "runs": runs})
    print(f"{study.question}\n")
    output.table(["claim", ""], [[name, CLAIMS[name].statement] for name in study.claims])
    print()
    output.table(
        ["run", "folder"],
        [[a, str(b.out)] for a, b in zip(names, under_way.jobs(study, folder), strict=True)],
    )


def _names(runs: Sequence[RunSpec]) -> list[str]:
    return labels([run.model_dump(mode="json") for run in runs])


def _workers(study: StudySpec) -> int:
    """One a core and a GiB of free memory; a GPU works on one run at a time."""
    import psutil
    import torch

    if torch.cuda.is_available() and any(run.device != "cpu" for run in study.runs):
        return 1
    return max(1, min(cores(), int(psutil.virtual_memory().available) >> 30))


def _costs(runs: Sequence[RunSpec], output: Output) -> list[Cost]:
    """One trial for all runs that only differ in what costs nothing."""
    known: dict[tuple[Any, ...], Cost] = {}
    for run, name in zip(runs, _names(runs), strict=True):
        key = tuple(getattr(run, field) for field in _COSTLY)
        if key not in known:
            output.say(f"trying {name}, for its time and memory")
            known[key] = cost(run)
    return [known[tuple(getattr(run, field) for field in _COSTLY)] for run in runs]


def _planned(plan: dict[str, Any]) -> list[str]:
    if plan["mistake"]:
        return [plan["run"], plan["state"], "–", "–", plan["mistake"]]
    return [
        plan["run"],
        plan["state"],
        f"{plan['trained']:,}",
        duration(plan["seconds"]),
        _gigabytes(plan["bytes"]),
    ]


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
