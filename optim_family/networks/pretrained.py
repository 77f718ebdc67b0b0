"""Weights from a safetensors file into a network: all that it needs, nothing that it does not know."""

import hashlib
import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from optim_family.errors import CorruptError, UsageError, one_line

# The network's tensors as a checkpoint of a run names them; beside them are those of the optimizer.
_OWN: Final = re.compile(r"tree\['model'\]\['(.+)'\]")
_FORGED: Final = (safetensors.SafetensorError, struct.error, ValueError, TypeError, KeyError)
_NAMED: Final = 3  # of the tensors that do not fit, so many are named


def load_weights(model: nn.Module, path: Path, name: str) -> str:
    """Put the tensors of a file into a network, in the network's own dtype; the SHA-256 of the file.

    Every parameter must be there, a frozen one too. A buffer may be missing, and keeps its value then.

    Args:
        model: the network; left as it is if anything is wrong.
        path: a safetensors file, by the names of `state_dict()`, or a checkpoint of a run.
        name: of the network, for messages.

    Raises:
        UsageError: there is no such file, or it holds the weights of another network.
        CorruptError: it is damaged, or its numbers are not finite.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the weights {path} cannot be read: {error.strerror}") from None
    try:
        tensors = _of_network(safetensors.torch.load(data))
    except _FORGED as error:
        raise CorruptError(f"{path} is no safetensors file, or damaged: {one_line(error)}") from error
    if mistakes := _mistakes(model, tensors):
        raise UsageError(f"{path} does not fit {name}: {'; '.join(mistakes)}")
    if bad := [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise CorruptError(f"{path} holds numbers that are not finite: {_few(bad)}")
    model.load_state_dict(model.state_dict() | tensors)
    return hashlib.sha256(data).hexdigest()


def _of_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {match[1]: tensor for key, tensor in tensors.items() if (match := _OWN.fullmatch(key))}
    return own or dict(tensors)


def _mistakes(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    known = model.state_dict()
    needed = known.keys() - {key for key, _ in model.named_buffers()}
    missing = [key for key in known if key in needed - tensors.keys()]
    strange = [key for key in tensors if key not in known]
    shapes = [
        f"{key} {list(tensor.shape)} instead of {list(known[key].shape)}"
        for key, tensor in tensors.items()
        if key in known and tensor.shape != known[key].shape
    ]
    found = {"it has no": missing, "it has an unknown": strange, "of another shape:": shapes}
    return [f"{what} {_few(keys)}" for what, keys in found.items() if keys]


def _few(keys: Collection[str]) -> str:
    listed = list(keys)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f", …(+{more})" if more > 0 else "")
