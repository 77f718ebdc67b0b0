"""What `optim-family flow` does once it knows what is wanted."""

import json
from pathlib import Path
from typing import Any

import torch

from optim_family.cli import run_progress
from optim_family.cli.output import Output
from optim_family.errors import UsageError, unknown
from optim_family.figures import style
from optim_family.resources import version
from optim_family.runs.atomic_files import replace_atomically, writing
from optim_family.runs.record_log import finite
from optim_family.runs.run import read_run
from optim_family.theory.demos import SUBJECTS, Shown, network

LIBRARIES = ("optim-family", "torch", "numpy", "scipy", "matplotlib")


def subject_named(name: str | None, output: Output) -> Shown:
    """The answer of this name.

    Raises:
        UsageError: there is none.
    """
    if name is None:
        raise UsageError(f"name what to show, one of {', '.join(SUBJECTS)}, or a run with --run")
    if name not in SUBJECTS:
        raise UsageError(unknown("subject", name, SUBJECTS))
    output.say(f"{name}: gradient descent and the flow …")
    return SUBJECTS[name]()


def repeated(name: str | None, path: Path, checkpoints: int, removed: int, output: Output) -> Shown:
    """The answer for a run.

    Raises:
        UsageError: a subject is named as well, or the flow is not made for this run.
    """
    from optim_family.theory.run_replay import follow

    if name is not None:
        raise UsageError(f"flow shows {name} or the run {path}, not both; leave one of them out")
    run = read_run(path)
    listener = run_progress.listener(f"repeating {path}, {run.spec['steps']} steps", output.quiet)
    return network(run, follow(run, checkpoints=checkpoints, k=removed, listener=listener))


def made_with() -> dict[str, Any]:
    """What the numbers may depend on: versions of libraries, and threads."""
    versions = {name: version(name) or "not installed" for name in LIBRARIES}
    return {"versions": versions, "threads": torch.get_num_threads()}


def deliver(shown: Shown, folder: Path, output: Output) -> None:
    """Write the files, and say the numbers."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = style.save(shown.figure, folder, shown.stem)
    if shown.film:
        paths.append(folder / f"{shown.stem}.gif")
        replace_atomically(paths[-1], shown.film)
    record = finite({**shown.record, **made_with()})
    replace_atomically(folder / f"{shown.stem}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if output.json:
        output.data({**record, "figure": {path.suffix[1:]: str(path) for path in paths}})
        return
    output.table(shown.headers, shown.rows)
    print(f"\nfigure: {'  '.join(map(str, paths))}")
