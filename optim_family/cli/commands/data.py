"""`optim-family data`: list the data sets, show one, or fetch it."""

from dataclasses import asdict
from typing import Any

from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import Output
from optim_family.data import datasets


@listing("data")
def command(output: Output) -> None:
    """List the named data sets."""
    catalogue = datasets.catalogue()
    headers = ["data", "train + test", "size", "classes", "on this machine", ""]
    output.result([asdict(entry) for entry in catalogue], headers, [_row(entry) for entry in catalogue])
    others = "".join(f" {name} of {entry.source}," for name, entry in datasets.registered_datasets().items())
    if not output.json:
        output.say(
            f"\nAlso{others} npz:PATH (x_train, y_train, x_test, y_test) "
            "and folder:PATH (train/CLASS/*.png, test/…)."
        )


def _row(entry: datasets.DatasetInfo) -> list[str]:
    return [
        entry.name,
        f"{entry.train_images} + {entry.test_images}",
        f"{entry.size[0]}×{entry.size[1]}×{entry.channels}",
        str(entry.classes),
        "yes" if entry.present else f"optim-family data fetch {entry.name}",
        entry.description,
    ]


@command.subcommand("fetch")
def fetch(output: Output, name: str) -> None:
    """Download a published data set, unless it is on this machine already."""
    folder = str(datasets.fetch(name))
    output.result({"name": name, "folder": folder}, [""], [[folder]])


@command.subcommand("show")
def show(output: Output, name: str) -> None:
    """Read a data set and show what it contains: NAME, npz:PATH or folder:PATH."""
    facts = _facts(name)
    output.result(facts, ["", name], [[key, _text(value)] for key, value in facts.items()])


def _facts(name: str) -> dict[str, Any]:
    dataset = datasets.load(name)
    counts = dataset.y_train.bincount(minlength=dataset.classes).tolist()
    return {
        "train images": len(dataset.y_train),
        "test images": len(dataset.y_test),
        **{f"test images, {name}": len(y) for name, (_, y) in dataset.further_tests.items()},
        "size": [*dataset.size, dataset.channels],
        "classes": dict(zip(dataset.class_names, counts, strict=True)),
        "mean": [round(value, 4) for value in dataset.mean.tolist()],
        "standard deviation": [round(value, 4) for value in dataset.std.tolist()],
        "sha256": dataset.sha256,
        **({"read as": dataset.notice} if dataset.notice else {}),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {count}" for key, count in value.items())
    return "×".join(map(str, value)) if isinstance(value, list) else str(value)
