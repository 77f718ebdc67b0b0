"""Who carries out the runs of a study: what `--launcher` and `--set-launcher` mean."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optim_family.errors import UsageError, key_value
from optim_family.study.clusters import Ray, Submitit
from optim_family.study.launchers import Launcher

_LOGS = ".submitit"  # in the folder of the study: the scripts and logs of its jobs


Start = Callable[[int], Launcher]


def taken(given: dict[str, Any]) -> Callable[[Path], Start | None]:
    """Out of the options of a command, which loses them; the rest is `chosen` for the folder of the study."""
    settings, address = given.pop("set_launcher"), given.pop("address")
    return partial(chosen, given.pop("launcher"), settings=settings, address=address)


def chosen(launcher: str, folder: Path, settings: Sequence[str], address: str | None) -> Start | None:
    """What makes the launcher, given the number of runs at a time; None for the usual one, of this machine.

    Raises:
        UsageError: a setting is not KEY=VALUE, or given to a launcher that has none.
    """
    known = dict(map(_pair, settings))
    if launcher == "submitit" and address is None:
        return lambda workers: Submitit(folder / _LOGS, workers, known)
    if launcher == "ray":
        return partial(Ray, address=address, settings=known)
    if known or address:
        raise UsageError(f"--launcher {launcher} has no {'address' if address else 'settings'}")
    return None


def _pair(setting: str) -> tuple[str, Any]:
    key, text = key_value(setting, "--set-launcher")
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text
