"""Execute `optim-family flow`: make the figure, its table and its numbers, and write them."""

from pathlib import Path
from typing import Any

import torch

from optim_family.cli import run_progress
from optim_family.cli.output import Output, by_suffix, joined, write_json
from optim_family.errors import UsageError, unknown
from optim_family.figures import style
from optim_family.runs.atomic_files import make_folder, replace_atomically
from optim_family.runs.record_log import finite
from optim_family.runs.run import read_run
from optim_family.theory.demos import DEMOS, Demo, network
from optim_family.training.record import library_versions


def run_demo(name: str | None, output: Output) -> Demo:
    """The demo of this name.

    Raises:
        UsageError: there is no such demo.
    """
    if name is None:
        raise UsageError(f"name a demo, one of {', '.join(DEMOS)}, or a run with --run")
    if name not in DEMOS:
        raise UsageError(unknown("demo", name, DEMOS))
    output.say(f"{name}: gradient descent and the flow …")
    return DEMOS[name]()


def compare_run(name: str | None, path: Path, checkpoints: int, removed: int, output: Output) -> Demo:
    """Repeat a run, and compare it with the flow.

    Raises:
        UsageError: a demo is named as well, or the flow does not describe this run.
    """
    from optim_family.theory.run_replay import follow

    if name is not None:
        raise UsageError(f"flow shows {name} or the run {path}, not both; leave one of them out")
    run = read_run(path)
    listener = run_progress.listener(f"repeating {path}, {run.spec['steps']} steps", output.quiet)
    return network(run, follow(run, checkpoints=checkpoints, k=removed, listener=listener))


def environment() -> dict[str, Any]:
    """Versions of libraries and number of threads, on which the numbers may depend."""
    libraries = ("optim-family", "torch", "numpy", "scipy", "matplotlib")
    return {"versions": library_versions(libraries), "threads": torch.get_num_threads()}


def write(demo: Demo, folder: Path, output: Output) -> None:
    """Write the files, and print the table or the record."""
    make_folder(folder)
    paths = style.save(demo.figure, folder, demo.stem)
    if demo.film:
        paths.append(folder / f"{demo.stem}.gif")
        replace_atomically(paths[-1], demo.film)
    if demo.page:
        paths.append(folder / f"{demo.stem}.html")
        replace_atomically(paths[-1], demo.page)
    record = finite({**demo.record, **environment()})
    write_json(folder / f"{demo.stem}.json", record)
    output.result({**record, "figure": by_suffix(paths)}, demo.headers, demo.rows)
    if not output.json:
        print(f"\nfigure: {joined(paths)}")
