"""Checkpoints: everything that a resumed run needs to be bitwise identical, without pickle.

step-00000120.safetensors holds the tensors, and in its metadata the rest as JSON, with the SHA-256 of the
file, computed with zeros in its own place. A file is written atomically: there is no partial write.

In the JSON a dict is {"dict": [[key, value], …]}, a tuple {"tuple": […]}, a tensor {"tensor": its name},
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
from optim_family.runs.atomic_files import FORMAT, replace_atomically, writing

_KEPT = 2
_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_MARK, _BLANK = (
    b'"sha256":"',
    b"0" * 64,
)  # a quote inside a name or a text is escaped: the mark stands there once
_MALFORMED = (safetensors.SafetensorError, struct.error, ValueError, TypeError, KeyError, RecursionError)
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
            any nesting. Tensors come back bitwise identical, on the CPU, each with its own memory.

    Returns:
        The file.

    Raises:
        TypeError: there is something else in the tree; the message says where.
        CorruptError: the system refuses to write; the checkpoints before are intact.
    """
    data = pack(tree, format=str(FORMAT), step=str(step), sha256=_BLANK.decode())
    place, digest = _seal(data)
    path = folder / f"step-{step:08d}.safetensors"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, data[: place.start] + digest + data[place.stop :])
    _prune(folder, step)
    return path


def load_latest(
    folder: Path, warn: Callable[[str], None], spec: str | None = None
) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint that is whole, as its step and its tree; None where there is none at all.

    Args:
        folder: where they were saved.
        warn: called with one line for each checkpoint that is skipped.
        spec: key of the run; a checkpoint whose tree has another `spec` is skipped.

    Raises:
        CorruptError: there are checkpoints, and all are damaged or of other runs.
    """
    files = _files(folder)
    for step, path in reversed(files):
        try:
            tree = _load(path, step)
            if spec is not None and tree.get("spec") != spec:
                raise CorruptError(f"{path} is the checkpoint of another run")
            return step, tree
        except CorruptError as error:
            warn(f"{error}; this checkpoint is skipped")
    if files:
        raise CorruptError(f"{folder} holds no whole checkpoint of its run; repeat the run in a new folder")
    return None


def pack(tree: dict[str, Any], **metadata: str) -> bytes:
    """A tree as bytes, to be sent to another process; it may hold what `save` accepts."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "tree", tensors))
    return safetensors.torch.save(tensors, {**metadata, "tree": text})


def unpack(data: bytes) -> dict[str, Any]:
    """The tree that `pack` was given, on the CPU."""
    tree: dict[str, Any] = _decode(json.loads(_metadata(data)["tree"]), safetensors.torch.load(data))
    return tree


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata that `pack` stored, and the tree as text."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata


def _seal(data: bytes) -> tuple[slice, bytes]:
    """Where the SHA-256 of a file belongs, and what it is."""
    begin = data.find(_MARK) + len(_MARK)
    place, whole = slice(begin, begin + len(_BLANK)), memoryview(data)
    digest = hashlib.sha256(whole[: place.start])
    digest.update(_BLANK)
    digest.update(whole[place.stop :])
    return place, digest.hexdigest().encode()


def _load(path: Path, step: int) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptError(f"{path} could not be read: {error.strerror}") from error
    try:
        metadata = _metadata(data)
        version = int(metadata["format"])
    except _MALFORMED:
        metadata, version = {}, FORMAT
    if version > FORMAT:
        raise CorruptError(f"{path} has format {version}, newer than {FORMAT}; use a newer optim-family")
    place, digest = _seal(data)
    if data[place] != digest:
        raise CorruptError(f"{path} is damaged: its contents do not match their SHA-256")
    try:
        if int(metadata["step"]) != step:
            raise CorruptError(f"{path} is the checkpoint of step {metadata['step']} under another name")
        tree = unpack(data)
    except _MALFORMED as error:
        raise CorruptError(f"{path} was not made by this program") from error
    if not isinstance(tree, dict):
        raise CorruptError(f"{path} was not made by this program")
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
    """Step and path of every checkpoint, the oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def _prune(folder: Path, step: int) -> None:
    """Keep the newest up to `step`; later ones, skipped as damaged, are overwritten in their turn."""
    past = [path for saved, path in _files(folder) if saved <= step]
    with writing(folder):
        for path in past[:-_KEPT]:
            path.unlink()
