"""`optim-family optimizers`: list them, show one, check one, or begin a new one."""

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from optim_family import registry
from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import Output
from optim_family.conformance.plugin_template import write
from optim_family.conformance.runner import run_checks
from optim_family.errors import PluginError, UsageError
from optim_family.registry import PluginEntry, named_error


@listing("optimizers")
def command(output: Output) -> None:
    """List the installed optimizers; with -v import each and report what is wrong with it."""
    known = registry.entries()
    states = {name: _state(entry, output.verbose) for name, entry in known.items()}
    if output.json:
        return output.data([_row(entry, states[name]) for name, entry in known.items()])
    remarks = any(states.values())
    rows = [[e.name, e.target, e.source, *[states[e.name]] * remarks] for e in known.values()]
    output.table(["optimizer", "class", "distribution", *["remarks"] * remarks], rows)


@command.named("show")
def show(output: Output, name: str) -> None:
    """Show the algorithm of one optimizer, and its hyper-parameters."""
    optimizer = registry.load(name)
    from optim_family.cli.model_options import fields

    table = [[f.name, f.default, f.range, f.meaning] for f in fields(optimizer.Hyper)]
    text = description(optimizer)
    if output.json:
        keys = ("name", "default", "range", "meaning")
        return output.data(
            {"name": name, "text": text, "hyper": [dict(zip(keys, row, strict=True)) for row in table]}
        )
    print(f"{text}\n")
    output.table(["hyper-parameter", "default", "range", "meaning"], table)


@command.named("check")
@click.option("--seconds", type=click.IntRange(1), default=120, help="Time limit of one check (default 120).")
def check(output: Output, name: str, seconds: int) -> None:
    """Compare what an optimizer declares about itself with its real steps, in a separate process.

    Exit 6 where they differ.
    """
    results = list(run_checks(name, seconds=seconds))
    if output.json:
        output.data({"name": name, "checks": [asdict(r) | {"as_declared": r.as_declared} for r in results]})
    else:
        rows = [[r.check, r.verdict, r.expected, r.measured] for r in results]
        output.table(["check", "verdict", "expected", "measured"], rows)
    if differing := [r.check for r in results if not r.as_declared]:
        raise named_error(registry.entry(name), f"differs from its declaration: {', '.join(differing)}")


@command.named("new")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder (default ./NAME).")
def new(output: Output, name: str, out: Path | None) -> None:
    """Write a distribution that registers an optimizer NAME, with a test, as a start for your own."""
    if owner := registry.entries().get(name):
        raise UsageError(f"{owner.source} has an optimizer {name!r} already; choose another name")
    files = [str(path) for path in write(name, out or Path(name))]
    if output.json:
        return output.data({"name": name, "files": files})
    print("\n".join(files))
    output.say(f"\nNext: pip install --editable {out or name} and optim-family optimizers check {name}")


def description(optimizer: type) -> str:
    """The mathematics, from the docstring of the module, and what the class says of itself."""
    module = inspect.getdoc(inspect.getmodule(optimizer)) or ""
    return "\n\n".join(filter(None, (module, inspect.getdoc(optimizer))))


def _row(entry: PluginEntry, state: str) -> dict[str, Any]:
    return {
        "name": entry.name,
        "class": entry.target,
        "distribution": entry.distribution,
        "version": entry.version,
        "remarks": state,
    }


def _state(entry: PluginEntry, thorough: bool) -> str:
    if entry.conflicting:
        return f"clash: registered by {' and by '.join(entry.conflicting)}"
    if not thorough:
        return ""
    try:
        registry.load(entry.name)
    except PluginError as error:
        return f"broken: {error}"
    return "loads"
