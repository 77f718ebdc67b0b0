"""`optim-family optimizers`: the list, one in full, and whether one keeps its promises."""

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
from optim_family.registry import PluginEntry


@listing("optimizers")
def command(output: Output) -> None:
    """List the optimizers that are installed; with -v import each, and say what is wrong with it."""
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
    text = described(optimizer)
    if output.json:
        keys = ("name", "default", "range", "meaning")
        return output.data(
            {"name": name, "text": text, "hyper": [dict(zip(keys, row, strict=True)) for row in table]}
        )
    print(f"{text}\n")
    output.table(["hyper-parameter", "default", "range", "meaning"], table)


@command.named("check")
@click.option("--seconds", type=click.IntRange(1), default=120, help="Limit for one promise (default 120).")
def check(output: Output, name: str, seconds: int) -> None:
    """Compare what an optimizer declares about itself with its real steps, in a process of its own.

    Exit 6 where they differ.
    """
    found = list(run_checks(name, seconds=seconds))
    if output.json:
        output.data({"name": name, "findings": [asdict(f) | {"fine": f.fine} for f in found]})
    else:
        rows = [[f.promise, f.verdict, f.expected, f.measured] for f in found]
        output.table(["promise", "verdict", "expected", "measured"], rows)
    if broken := [f.promise for f in found if not f.fine]:
        source = registry.entry(name).source
        raise PluginError(f"optimizer {name!r} of {source} does not do as it says: {', '.join(broken)}")


@command.named("new")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder (default ./NAME).")
def new(output: Output, name: str, out: Path | None) -> None:
    """Write a distribution that registers an optimizer NAME, with a test: the place for your own."""
    if taken := registry.entries().get(name):
        raise UsageError(f"{taken.source} has an optimizer {name!r} already; choose another name")
    files = [str(path) for path in write(name, out or Path(name))]
    if output.json:
        return output.data({"name": name, "files": files})
    print("\n".join(files))
    output.say(f"\nNext: pip install --editable {out or name} and optim-family optimizers check {name}")


def described(optimizer: type) -> str:
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
