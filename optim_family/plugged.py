"""Models and data sets of other distributions, registered as optimizers are.

    optim_family.models = tiny = my_package:tiny     tiny(classes, channels, size, **kwargs) → nn.Module
    optim_family.data = stripes = my_package:load    load() → x_train, y_train, x_test, y_test in a dict

A model is adapted as every other: its read-out is called `fc`, or a card with `plugin = "tiny"` says what is
frozen. A data set holds what an npz file holds, and may name its classes in `class_names`.
"""

from typing import Any

from optim_family.data.arrays import Arrays, checked
from optim_family.registry import DATA, MODELS, broken, guarded, provided


def network(name: str, classes: int, channels: int, size: tuple[int, int], **kwargs: Any) -> Any:
    """The network that a plugin builds: [n, channels, *size] → [n, classes].

    Raises:
        PluginError: it fails, or builds something else.
    """
    from torch import nn

    entry, build = provided(MODELS, name)
    with guarded(entry, "built"):
        made = build(classes, channels, size, **kwargs)
    if not isinstance(made, nn.Module):
        raise broken(entry, f"builds no nn.Module, but {type(made).__name__}")
    return made


def arrays(name: str) -> Arrays:
    """The images and labels that a plugin loads.

    Raises:
        PluginError: it fails, or an array is missing.
        CorruptError: a shape, a type, a count or a label is wrong.
    """
    entry, load = provided(DATA, name)
    with guarded(entry, "loaded"):
        found = dict(load())
        names = found.pop("class_names", None)
        wanted = {key: found[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    return checked(f"{name} of {entry.source}", wanted, names and tuple(map(str, names)))
