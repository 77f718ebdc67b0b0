"""The cases, one file each; a file is imported when its case is selected."""

import importlib
from typing import Final

from optim_family.errors import UsageError, unknown
from optim_family.theory.verify import Case

MODULES: Final = {
    "V1": "projected_descent",
    "V2": "quasi_rmsprop",
    "V3": "spherical_sharpness",
    "V4": "rescaling",
    "V5": "linear_regression",
    "V6": "scalar_rmsprop",
    "V7": "thresholds",
    "V8": "period_two",
    "V9": "flow_distance",
    "V10": "rmsprop_edge",
    "V11": "adam_edge",
    "V12": "digits",
    "V13": "exponential_growth",
    "V14": "norm_descent",
    "V15": "along_update",
    "V16": "sam_edge",
    "V17": "catapult",
    "V18": "random_curvature",
    "V19": "rotation",
}
SLOW: Final = ("V12",)


def load(name: str) -> Case:
    """The case of this name.

    Raises:
        UsageError: there is no such case.
    """
    if name not in MODULES:
        raise UsageError(unknown("case", name, MODULES))
    module = importlib.import_module(f"{__name__}.{MODULES[name]}")
    return Case(name, module.observe, module.checks, module.draw)


def select(only: str | None, slow: bool = False) -> list[Case]:
    """The cases of a list such as `V5,V6`; without a list all, with the slow ones if `slow`.

    Raises:
        UsageError: there is no such case.
    """
    names = [name for name in MODULES if slow or name not in SLOW]
    if only is not None:
        names = list(dict.fromkeys(name.strip().upper() for name in only.split(",")))
    return [load(name) for name in names]
