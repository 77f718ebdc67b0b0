"""`optim-family optimizers`: list them, show one, check one, or begin a new one."""

import inspect
from dataclasses import asdict
from pathlib import Path

import rich_click as click

from optim_family import registry
from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import PATH, Output
from optim_family.cli.run_progress import LifeSign
from optim_family.conformance.plugin_template import write
from optim_family.conformance.runner import run_checks
from optim_family.errors import PluginError, UsageError
from optim_family.registry import PluginEntry, named_error


@listing("optimizers")
def command(output: Output) -> None:
    """List the installed optimizers, and why a plugin cannot be imported; with -v import all of them."""
    names = ("name", "class", "distribution", "version", "remarks")
    table = [
        (entry.name, entry.target, entry.distribution, entry.version, _remarks(entry, output.verbose))
        for entry in registry.entries().values()
    ]
    remarks = any(row[-1] for row in table)
    rows = [[*row[:2], " ".join(row[2:4]).strip(), *row[4:] * remarks] for row in table]
    headers = ["optimizer", "class", "distribution", *["remarks"] * remarks]
    output.result([dict(zip(names, row, strict=True)) for row in table], headers, rows)


def _remarks(entry: PluginEntry, verbose: bool) -> str:
    """A clash, or why the optimizer cannot be imported; the built-in ones are imported only if verbose."""
    if entry.conflicting:
        return f"clash: registered by {' and by '.join(entry.conflicting)}"
    if entry.built_in and not verbose:
        return ""
    try:
        registry.load(entry.name)
    except PluginError as error:
        return f"broken: {error}"
    return "loads" if verbose else ""


@command.subcommand("show")
def show(output: Output, name: str) -> None:
    """Show the algorithm and the hyper-parameters of one optimizer."""
    optimizer = registry.load(name)
    from optim_family.cli.model_options import fields

    # The mathematics is in the docstring of the module.
    docstrings = inspect.getdoc(inspect.getmodule(optimizer)), inspect.getdoc(optimizer)
    text = "\n\n".join(filter(None, docstrings))
    table = [[f.name, f.default, f.range, f.meaning] for f in fields(optimizer.Hyper)]
    keys = ("name", "default", "range", "meaning")
    if not output.json:
        print(f"{text}\n")
    hyper = [dict(zip(keys, row, strict=True)) for row in table]
    output.result({"name": name, "text": text, "hyper": hyper}, ["hyper-parameter", *keys[1:]], table)


@command.subcommand("check")
@click.option("--seconds", type=click.IntRange(1), default=120, help="Time limit of one check (default 120).")
def check(output: Output, name: str, seconds: int) -> None:
    """Compare the declarations of an optimizer with its real steps, in a separate process.

    Exit 6 if they differ.
    """
    entry = registry.entry(name)
    with LifeSign(output.quiet) as sign:
        sign(f"{name}: importing it in a separate process …")
        checks = run_checks(name, seconds=seconds, on_check=lambda check: sign(f"{name}, check {check} …"))
        results = list(checks)
    records = [asdict(result) | {"as_declared": result.as_declared} for result in results]
    columns = ("check", "verdict", "expected", "measured")
    rows = [[getattr(result, column) for column in columns] for result in results]
    output.result({"name": name, "checks": records}, columns, rows)
    if differing := [result.check for result in results if not result.as_declared]:
        raise named_error(entry, f"differs from its declaration: {', '.join(differing)}")


@command.subcommand("new")
@click.option("--out", type=PATH, help="Folder of the distribution, new or empty (default ./NAME).")
def new(output: Output, name: str, out: Path | None) -> None:
    """Write a distribution with an optimizer NAME and its test, as a template for your own."""
    if owner := registry.entries().get(name):
        raise UsageError(f"{owner.source} has an optimizer {name!r} already; choose another name")
    files = [str(path) for path in write(name, out or Path(name))]
    output.result({"name": name, "files": files}, [""], [[file] for file in files])
    if not output.json:
        output.say(f"\nNext: pip install --editable {out or name} and optim-family optimizers check {name}")
