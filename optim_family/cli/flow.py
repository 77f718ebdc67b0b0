"""Carry out `optim-family flow`: make the figure, its table and its numbers, and write them."""

import json
from pathlib import Path
from typing import Any

import torch

from optim_family.cli import run_progress
from optim_family.cli.output import Output
from optim_family.errors import UsageError, unknown
from optim_family.figures import style
from optim_family.runs.atomic_files import replace_atomically, writing
from optim_family.runs.record_log import finite
from optim_family.runs.run import read_run
from optim_family.theory.demos import SUBJECTS, Demo, network
from optim_family.training.provenance import library_versions

LIBRARIES = ("optim-family", "torch", "numpy", "scipy", "matplotlib")


def run_subject(name: str | None, output: Output) -> Demo:
    """The demo of this name.

    Raises:
        UsageError: there is no such subject.
    """
    if name is None:
        raise UsageError(f"name what to show, one of {', '.join(SUBJECTS)}, or a run with --run")
    if name not in SUBJECTS:
        raise UsageError(unknown("subject", name, SUBJECTS))
    output.say(f"{name}: gradient descent and the flow …")
    return SUBJECTS[name]()


def compare_run(name: str | None, path: Path, checkpoints: int, removed: int, output: Output) -> Demo:
    """The demo of a run, which is repeated.

    Raises:
        UsageError: a subject is named as well, or the flow does not describe this run.
    """
    from optim_family.theory.run_replay import follow

    if name is not None:
        raise UsageError(f"flow shows {name} or the run {path}, not both; leave one of them out")
    run = read_run(path)
    listener = run_progress.listener(f"repeating {path}, {run.spec['steps']} steps", output.quiet)
    return network(run, follow(run, checkpoints=checkpoints, k=removed, listener=listener))


def environment() -> dict[str, Any]:
    """Versions of libraries and number of threads, on which the numbers may depend."""
    return {"versions": library_versions(LIBRARIES), "threads": torch.get_num_threads()}


def deliver(demo: Demo, folder: Path, output: Output) -> None:
    """Write the files, and print the table or the record."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = style.save(demo.figure, folder, demo.stem)
    if demo.film:
        paths.append(folder / f"{demo.stem}.gif")
        replace_atomically(paths[-1], demo.film)
    record = finite({**demo.record, **environment()})
    replace_atomically(folder / f"{demo.stem}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if output.json:
        output.data({**record, "figure": {path.suffix[1:]: str(path) for path in paths}})
        return
    output.table(demo.headers, demo.rows)
    print(f"\nfigure: {'  '.join(map(str, paths))}")
