"""The command line that repeats a run."""

import shlex
from collections.abc import Iterator
from typing import Any, Final

from optim_family.runs.run import Run

# Fields of a specification that are no option of this name.
_OTHER: Final = ("format", "sha256", "optimizer", "hyper", "views", "limit", "batch_size")


def command(run: Run) -> str | None:
    """`optim-family run …` with every option of the specification; None for a run of a script.

    All digits of a data set stand as their number, which is what the option means by default elsewhere.
    """
    spec = run.spec
    if spec["data"] == "script" or spec.get("steps") is None:
        return None
    words = ["optim-family", "run", "--optimizer", spec["optimizer"], *_limit(run)]
    for name, value in spec["hyper"].items():
        # The name of an option of `run` belongs to `run`; the optimizer's has a prefix.
        words += _option(f"{spec['optimizer']}-{name}" if name in spec else name, value)
    words += ["--batch-size", "full" if spec["batch_size"] is None else str(spec["batch_size"])]
    words += ["--view", ",".join(spec["views"])] if spec["views"] else []
    for name, value in spec.items():
        words += [] if name in _OTHER else _option(name, value)
    return shlex.join(words)


def _limit(run: Run) -> list[str]:
    """All images are the default, but for digits, of which they are a number."""
    limit = run.spec["limit"]
    if limit is None and run.spec["data"] == "digits":
        limit = run.provenance.get("data", {}).get("train")
    return [] if limit is None else ["--limit", str(limit)]


def _option(name: str, value: Any) -> Iterator[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
    elif value is not None:
        for each in value if isinstance(value, list | tuple) else [value]:
            yield from (f"--{flag}", repr(each) if isinstance(each, float) else str(each))
