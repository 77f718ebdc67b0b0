"""Checkpoints: everything that a run needs to go on to the last bit, without pickle.

    step-00000120.safetensors    the tensors
    step-00000120.json           the rest, with the SHA-256 of both; written last: without it there is nothing

In the JSON file a dict is {"dict": [[key, value], …]}, a tuple {"tuple": […]}, a tensor {"tensor": its name},
and a float that JSON cannot hold {"float": its eight bytes}; lists, strings and other numbers are themselves.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from optim_family.errors import CorruptError
from optim_family.files import replace_atomically, seal, unseal, writing

_KEPT = 2
_NAME = re.compile(r"step-(\d{8,})\.(json|safetensors)")
_FORGED = (safetensors.SafetensorError, struct.error, ValueError, TypeError, KeyError, RecursionError)
_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64}
)


def save(folder: Path, step: int, tree: dict[str, Any]) -> Path:
    """Write a checkpoint, and when it is safe on the disk delete those before the previous one.

    Args:
        folder: where; made if it does not exist.
        step: of the run.
        tree: dicts with str or int keys, lists, tuples, dense tensors, int, float, bool, str and None, in
            any nesting. Tensors come back equal to the last bit, on the CPU, each with its own memory.

    Returns:
        The JSON file.

    Raises:
        TypeError: there is something else in the tree; the message says where.
        CorruptError: the system refuses to write; the checkpoints before are intact.
    """
    tensors: dict[str, Tensor] = {}
    encoded = _encode(tree, "tree", tensors)
    data = safetensors.torch.save(tensors)
    manifest = _manifest(folder, step)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_atomically(_tensors(manifest), data)
    body = {"step": step, "tensors": hashlib.sha256(data).hexdigest(), "tree": encoded}
    replace_atomically(manifest, seal(body))
    _prune(folder, step)
    return manifest


def load_latest(folder: Path, warn: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint that is whole, as its step and its tree; None where there is none at all.

    Args:
        folder: where they were saved.
        warn: told in one line of each damaged checkpoint that is passed over.

    Raises:
        CorruptError: there are checkpoints, and all are damaged.
    """
    files = _files(folder)
    for step in sorted({step for step, _ in files}, reverse=True):
        try:
            return step, _load(_manifest(folder, step), step)
        except CorruptError as error:
            warn(f"{error}; this checkpoint is passed over")
    if any(path.suffix == ".json" for _, path in files):
        raise CorruptError(f"{folder} holds no checkpoint that is whole; repeat the run in a new folder")
    return None


def pack(tree: dict[str, Any]) -> bytes:
    """A tree as bytes, to be sent to another process; what it may hold is as for `save`."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "tree", tensors))
    return safetensors.torch.save(tensors, {"tree": text})


def unpack(data: bytes) -> dict[str, Any]:
    """The tree that `pack` was given, on the CPU."""
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"]["tree"]
    tree: dict[str, Any] = _decode(json.loads(text), safetensors.torch.load(data))
    return tree


def _load(manifest: Path, step: int) -> dict[str, Any]:
    body = unseal(manifest)
    file = _tensors(manifest)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CorruptError(f"{file} could not be read: {error.strerror}") from error
    if body.get("step") != step:
        raise CorruptError(f"{manifest} is the checkpoint of step {body.get('step')} under another name")
    if body.get("tensors") != hashlib.sha256(data).hexdigest():
        raise CorruptError(f"{file} is damaged: its contents do not match their SHA-256")
    try:
        tree = _decode(body["tree"], safetensors.torch.load(data))
    except _FORGED as error:
        raise CorruptError(f"{manifest} was not made by this program") from error
    if not isinstance(tree, dict):
        raise CorruptError(f"{manifest} was not made by this program")
    return tree


def _encode(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go into `tensors`, named after their place."""
    if isinstance(value, Tensor):
        return {"tensor": _add(value, place, tensors)}
    if isinstance(value, dict):
        return {"dict": [[_key(k, place), _encode(v, f"{place}[{k!a}]", tensors)] for k, v in value.items()]}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{place}[{index}]", tensors) for index, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if type(value) is float and not math.isfinite(value):
        return {"float": struct.pack(">d", value).hex()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _cannot(place, f"is a {type(value).__qualname__}")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    raise ValueError(kind)


def _add(tensor: Tensor, place: str, tensors: dict[str, Tensor]) -> str:
    """Put in a plain copy; no two places have one name, for keys stand in it as Python writes them."""
    if tensor.layout is not torch.strided or tensor.dtype not in _DTYPES or tensor.is_meta:
        raise _cannot(place, f"is a tensor of {tensor.dtype}, {tensor.layout} on {tensor.device}")
    tensors[place] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu").copy_(tensor.detach())
    return place


def _key(key: Any, place: str) -> str | int:
    if type(key) is str or type(key) is int:
        return key
    raise _cannot(place, f"has a key {key!r} that is a {type(key).__qualname__}")


def _cannot(place: str, what: str) -> TypeError:
    return TypeError(
        f"{place} {what}; a checkpoint holds dicts with str or int keys, lists, tuples, dense tensors, int, "
        "float, bool, str and None: store it as those"
    )


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every file of every checkpoint, half ones too; the JSON before the tensors."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _manifest(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.json"


def _tensors(manifest: Path) -> Path:
    return manifest.with_suffix(".safetensors")


def _prune(folder: Path, step: int) -> None:
    """Keep the newest up to `step`; later ones, passed over as damaged, are overwritten in their turn."""
    past = [(found, path) for found, path in _files(folder) if found <= step]
    kept = sorted(found for found, path in past if path.suffix == ".json")[-_KEPT:]
    with writing(folder):
        for found, path in past:
            if found not in kept:
                path.unlink()
