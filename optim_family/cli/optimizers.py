"""`optim-family optimizers`: the list, one in full, and whether one keeps its promises."""

import inspect
from typing import Any

from optim_family import registry
from optim_family.cli.lazy import listing
from optim_family.cli.output import Output
from optim_family.errors import PluginError
from optim_family.registry import Entry


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
    from optim_family.cli.fields import fields

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
def check(output: Output, name: str) -> int:
    """Compare what an optimizer declares about itself with its real steps; exit 6 where they differ."""
    optimizer = registry.load(name)
    from optim_family.testing import findings

    found = findings(optimizer)
    if output.json:
        output.data({"name": name, "findings": found})
    else:
        output.table(["promise", "finding"], [[promise, text or "kept"] for promise, text in found.items()])
    return PluginError.exit_code if any(found.values()) else 0


def described(optimizer: type) -> str:
    """The mathematics, from the docstring of the module, and what the class says of itself."""
    module = inspect.getdoc(inspect.getmodule(optimizer)) or ""
    return "\n\n".join(filter(None, (module, inspect.getdoc(optimizer))))


def _row(entry: Entry, state: str) -> dict[str, Any]:
    return {
        "name": entry.name,
        "class": entry.target,
        "distribution": entry.distribution,
        "version": entry.version,
        "remarks": state,
    }


def _state(entry: Entry, thorough: bool) -> str:
    if entry.rivals:
        return f"clash: registered by {' and by '.join(entry.rivals)}"
    if not thorough:
        return ""
    try:
        registry.load(entry.name)
    except PluginError as error:
        return f"broken: {error}"
    return "loads"
