"""Load weights from a safetensors file into a network: every parameter, and no unknown tensor."""

import hashlib
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from optim_family.errors import CorruptError, UsageError, first_three, one_line

# Name of a network's tensor in a checkpoint of a run, which holds those of the optimizer too.
_IN_CHECKPOINT: Final = re.compile(r"tree\['model'\]\['(.+)'\]")
# In the header of a checkpoint whose optimizer averages the weights and was in training mode.
_AT_Y: Final = re.compile(rb'train_mode\\*", true')
_MALFORMED: Final = (safetensors.SafetensorError, struct.error, ValueError, TypeError, KeyError)


def load_weights(model: nn.Module, path: Path, name: str) -> str:
    """Copy the tensors of a file into a network, in the network's dtype; return the SHA-256 of the file.

    The file must hold every parameter, frozen ones included. A missing buffer keeps its value.

    Args:
        model: the network; unchanged if an error is raised.
        path: a safetensors file with the names of `state_dict()`, or a checkpoint of a run.
        name: of the network, for error messages.

    Raises:
        UsageError: there is no such file, or it holds the weights of another network, or those at which a
            schedule-free optimizer computes gradients.
        CorruptError: it is damaged, or holds numbers that are not finite.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, str(error.strerror)) from None
    try:
        stored = safetensors.torch.load(data)
        names = {key: _IN_CHECKPOINT.fullmatch(key) for key in stored}
        tensors = {match[1]: stored[key] for key, match in names.items() if match} or stored
    except _MALFORMED as error:
        raise CorruptError(f"{path} is not a safetensors file, or is damaged: {one_line(error)}") from error
    if tensors is not stored and _AT_Y.search(data, 8, 8 + int.from_bytes(data[:8], "little")):
        what = "the weights at which a schedule-free optimizer computes gradients, not their average"
        raise UsageError(f"{path} holds {what}; `optim-family run` measures both, at --point x and y")
    if mistakes := _mistakes(model, tensors):
        raise UsageError(f"{path} does not fit {name}: {'; '.join(mistakes)}")
    if bad := [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise CorruptError(f"{path} holds numbers that are not finite: {first_three(bad)}")
    model.load_state_dict(model.state_dict() | tensors)
    return hashlib.sha256(data).hexdigest()


def unreadable(path: Path, reason: str) -> UsageError:
    """The error for a file of weights that cannot be read, for the given reason."""
    return UsageError(
        f"the weights {path} cannot be read: {reason}; give a .safetensors file or a checkpoint of a run"
    )


def _mistakes(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    known = model.state_dict()
    needed = known.keys() - {key for key, _ in model.named_buffers()}
    missing = [key for key in known if key in needed - tensors.keys()]
    unknown = [key for key in tensors if key not in known]
    shapes = [
        f"{key} {list(tensor.shape)} instead of {list(known[key].shape)}"
        for key, tensor in tensors.items()
        if key in known and tensor.shape != known[key].shape
    ]
    problems = {"it has no": missing, "it has an unknown": unknown, "of another shape:": shapes}
    return [f"{problem} {first_three(keys)}" for problem, keys in problems.items() if keys]
