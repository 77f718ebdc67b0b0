"""Execute `optim-family study`: run, preview, states and report of one study."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from optim_family.cli.output import Output
from optim_family.cli.run_progress import duration
from optim_family.cli.study_progress import HEADERS, Display, Progress
from optim_family.errors import OptimFamilyError, Stopped, UsageError, json_or_text, key_value
from optim_family.runs.labels import labels
from optim_family.runs.run import FINISHED, with_test_set
from optim_family.study import execution
from optim_family.study.clusters import Ray, Submitit
from optim_family.study.cost import Cost, cost
from optim_family.study.launchers import JobResult, Launcher, Local, cores
from optim_family.study.spec import StudySpec
from optim_family.training.plan import check_plan
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

# Runs with equal values of these fields take the same time.
_COSTLY: Final = tuple(field for field in RunSpec.model_fields if field not in ("hyper", "seed", "rtol"))

_NO_CLAIMS: Final = "This study has no claims: its report has tables and figures, without verdicts."

StartLauncher = Callable[[int], Launcher]  # of the number of runs at a time


def launcher_from_options(
    launcher: str, folder: Path, set_launcher: Sequence[str], address: str | None
) -> StartLauncher:
    """The launcher of `--launcher`, with the options of `--set-launcher` and `--address`.

    Raises:
        UsageError: a setting is not KEY=VALUE, or this launcher does not take it.
    """
    pairs = (key_value(setting, "--set-launcher") for setting in set_launcher)
    parameters = {key: json_or_text(text) for key, text in pairs}
    if launcher == "submitit" and address is None:
        return lambda workers: Submitit(folder / ".submitit", workers, parameters)
    if launcher == "ray":
        return partial(Ray, address=address, settings=parameters)
    if parameters or address:
        option = "--address" if address else "--set-launcher"
        raise UsageError(f"--launcher {launcher} takes no {option}; leave it out, or choose another launcher")
    return Local


def study_command(
    study: StudySpec, folder: Path, workers: int | None, output: Output, start_launcher: StartLauncher
) -> int:
    """Execute the unfinished runs, then write the report. Returns the exit code: 1 if runs failed."""
    jobs = execution.jobs(study, folder)
    at_once = min(workers or _workers(study), len(jobs))
    output.say(f"{study.name}: {len(jobs)} runs, {at_once} at a time, in {folder}")
    _say_notices(study, folder, output)
    request = "" if output.quiet else "stopping: the runs write checkpoints; again to kill them"
    try:
        with StopSignal(request).install() as stop, Display(Progress(jobs, at_once), output.quiet) as display:
            failed = execution.run_study(
                jobs, start_launcher(at_once), stop=stop, on_result=display.on_result, on_poll=display.refresh
            )
    except Stopped as error:
        raise type(error)("stopped; repeat the command to go on") from None
    if len(failed) == len(jobs):
        raise OptimFamilyError(f"all {len(jobs)} runs failed; {failed[0].job.out}: {failed[0].message}")
    write_report(study, folder, folder / "report", output, failed)
    return 1 if failed else 0


def write_report(
    study: StudySpec, folder: Path, to: Path, output: Output, failed: Sequence[JobResult] = ()
) -> None:
    """Write the report on the runs that have begun, and print its verdicts."""
    from optim_family.analysis import study_results
    from optim_family.study import report

    runs = [run for run in execution.runs(execution.jobs(study, folder)) if run.columns.count]
    if not runs:
        raise UsageError(
            f"no run of {study.name} with these settings has a record in {folder}; start with "
            "`optim-family study run`, or repeat the --set and --only of the runs that exist"
        )
    judged = [with_test_set(run, study.test_set) for run in runs] if study.test_set else runs
    results = study_results.evaluate_study(study.claims, judged)
    page = report.write(study, results, to)
    value = {
        "study": study.name,
        "report": str(page),
        "findings": [asdict(result) for result in results.claim_results],
        "failed": {str(result.job.out): result.message for result in failed},
    }
    rows = [[of[0].verdict, statement, of[0].evidence] for statement, of in results.results_of_claims.items()]
    if rows or output.json:
        output.result(value, ["verdict", "claim", "numbers"], rows)
    else:
        print(_NO_CLAIMS)
    if not output.json:
        print(f"\nreport: {page}")


def preview(study: StudySpec, folder: Path, workers: int | None, dry_run: str, output: Output) -> int:
    """Print the runs, and the time and memory they need. Returns the exit code: 2 if a run is impossible.

    With `plan` for `dry_run` nothing is tried, and time and memory are left out.
    """
    if dry_run == "plan":
        return _plan(study, folder, output)
    jobs = execution.jobs(study, folder)
    at_once = min(workers or _workers(study), len(jobs))
    output.say(f"{study.name}: {len(jobs)} runs in {folder}")
    _say_notices(study, folder, output)
    plan = [
        {"run": name, "folder": str(job.out), "state": execution.state(job).status, **asdict(each)}
        for name, job, each in zip(_names(study.runs), jobs, _costs(study.runs, output), strict=True)
    ]
    unfinished = [each for each in plan if each["state"] not in FINISHED]
    seconds = sum(each["seconds"] for each in unfinished) / at_once
    memory, threads = at_once * max(each["bytes"] for each in plan), Local(at_once).threads
    total = {"runs": len(plan), "left": len(unfinished), "workers": at_once, "threads": threads}
    value = {"study": study.name, **total, "seconds": seconds, "bytes": memory, "plan": plan}
    headers = ["run", "state", "trained parameters", "time", "memory"]
    output.result(value, headers, [_plan_row(**each) for each in plan])
    if not output.json:
        print(
            f"\n{len(unfinished)} of {len(plan)} runs are left in {folder}: {at_once} at a time, "
            f"with {threads} threads each, about {duration(seconds)} and {_gigabytes(memory)} of memory"
        )
    return UsageError.exit_code if any(each["mistake"] for each in plan) else 0


def _plan(study: StudySpec, folder: Path, output: Output) -> int:
    """Print the runs, their states, steps and records, after `check_plan` of each; returns the exit code."""
    for run in study.runs:
        check_plan(run)
    _say_notices(study, folder, output)
    jobs = execution.jobs(study, folder)
    plan = [
        {"run": name, "folder": str(job.out), "state": execution.state(job).status}
        | {"steps": job.spec.steps, "records": job.spec.records}
        for name, job in zip(_names(study.runs), jobs, strict=True)
    ]
    headers = ["run", "state", "steps", "records", "folder"]
    output.result({"study": study.name, "plan": plan}, headers, [[str(e[h]) for h in headers] for e in plan])
    return 0


def show_states(study: StudySpec, folder: Path, output: Output) -> None:
    """Print the progress of every run."""
    progress = Progress(execution.jobs(study, folder), 1)
    states = progress.refresh_states()
    _say_notices(study, folder, output)
    runs = [{"run": str(s.job.out), "status": s.status, "step": s.step, "record": s.record} for s in states]
    output.result({"study": study.name, "runs": runs}, HEADERS, [progress.row(state) for state in states])
    if not output.json:
        print(f"\n{study.name} in {folder}: {progress.headline()}")


def show(study: StudySpec, folder: Path, output: Output) -> None:
    """Print question, claims and runs."""
    claims = {name: claim.statement for name, claim in study.claims.items()}
    if output.json:
        runs = [run.model_dump(mode="json") for run in study.runs]
        return output.data({"name": study.name, "question": study.question, "claims": claims, "runs": runs})
    print(f"{study.question}\n")
    if claims:
        output.table(["claim", ""], list(claims.items()))
    else:
        print(_NO_CLAIMS)
    print()
    folders = [str(job.out) for job in execution.jobs(study, folder)]
    output.table(["run", "folder"], list(zip(_names(study.runs), folders, strict=True)))


def _say_notices(study: StudySpec, folder: Path, output: Output) -> None:
    """Settings that are hardly meant, and runs in the folder that the study does not have."""
    for notice in dict.fromkeys(run.notice for run in study.runs if run.notice):
        output.say(notice)
    others = Counter(execution.other_settings(study, folder))
    for difference, count in others.items():
        output.say(f"{count} run{'s' * (count > 1)} in {folder} differ{'s' * (count == 1)}: {difference}")


def _names(runs: Sequence[RunSpec]) -> list[str]:
    return labels([run.model_dump(mode="json") for run in runs])


def _workers(study: StudySpec) -> int:
    """One run for each core and GiB of free memory; with a GPU, one run at a time."""
    import psutil
    import torch

    if torch.cuda.is_available() and any(run.device != "cpu" for run in study.runs):
        return 1
    return max(1, min(cores(), int(psutil.virtual_memory().available) >> 30))


def _costs(runs: Sequence[RunSpec], output: Output) -> list[Cost]:
    """The cost of every run, estimated once for all runs that agree in `_COSTLY`."""
    estimates: dict[tuple[Any, ...], Cost] = {}
    keys = [tuple(getattr(run, field) for field in _COSTLY) for run in runs]
    different = len(set(keys))
    for run, name, key in zip(runs, _names(runs), keys, strict=True):
        if key not in estimates:
            number = f"{len(estimates) + 1} of {different}"
            output.say(f"trying {number}: a gradient, a product and an evaluation of {name} …")
            estimates[key] = cost(run)
    return [estimates[key] for key in keys]


def _plan_row(
    run: str, state: str, trained: int, seconds: float, bytes: int, mistake: str, **_: str
) -> list[str]:
    if mistake:
        return [run, state, "–", "–", mistake]
    return [run, state, f"{trained:,}", duration(seconds), _gigabytes(bytes)]


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
