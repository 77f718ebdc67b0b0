"""Checkpoints: everything that a resumed run needs to be bitwise identical, without pickle.

step-00000120.safetensors holds the tensors, and in its metadata the rest as JSON, with the SHA-256 of the
file, computed with zeros in the place of the digest. Files are written atomically.

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
# The mark occurs once, since JSON escapes a quote inside a string.
_MARK, _BLANK = b'"sha256":"', b"0" * 64
_MALFORMED = (safetensors.SafetensorError, struct.error, ValueError, TypeError, KeyError, RecursionError)
_DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64}
)


def save(folder: Path, step: int, tree: dict[str, Any]) -> Path:
    """Write a checkpoint; once it is safe on the disk, delete those before the previous one.

    Args:
        folder: created if it does not exist.
        step: of the run.
        tree: dicts with str or int keys, lists, tuples, dense tensors, int, float, bool, str and None, in
            any nesting. Tensors are loaded bitwise identical, on the CPU, each with its own memory.

    Returns:
        The file.

    Raises:
        TypeError: a value of another type; the message says where.
        CorruptError: the file cannot be written; earlier checkpoints are intact.
    """
    data = pack(tree, format=str(FORMAT), step=str(step), sha256=_BLANK.decode())
    place, digest = _seal(data)
    path = folder / f"step-{step:08d}.safetensors"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, data[: place.start] + digest + data[place.stop :])
    # Later checkpoints were skipped as damaged; they are overwritten when the run reaches their steps.
    earlier = [file for saved, file in _files(folder) if saved <= step]
    with writing(folder):
        for file in earlier[:-_KEPT]:
            file.unlink()
    return path


def load_latest(
    folder: Path, warn: Callable[[str], None], spec: str | None = None
) -> tuple[int, dict[str, Any]] | None:
    """The newest intact checkpoint, as its step and its tree; None if there are no checkpoints.

    Args:
        folder: of the checkpoints.
        warn: called with one line for each checkpoint that is skipped.
        spec: key of the run; a checkpoint whose tree has another `spec` is skipped.

    Raises:
        CorruptError: every checkpoint is damaged or of another run.
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
        raise CorruptError(f"{folder} holds no intact checkpoint of its run; repeat the run in a new folder")
    return None


def pack(tree: dict[str, Any], **metadata: str) -> bytes:
    """A tree as bytes, to send to another process; it may hold what `save` accepts."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "tree", tensors))
    return safetensors.torch.save(tensors, {**metadata, "tree": text})


def unpack(data: bytes) -> dict[str, Any]:
    """The tree that `pack` encoded, on the CPU."""
    tree: dict[str, Any] = _decode(json.loads(_metadata(data)["tree"]), safetensors.torch.load(data))
    return tree


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata that `pack` stored, and the tree as text."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata


def _seal(data: bytes) -> tuple[slice, bytes]:
    """The place of the SHA-256 in a file, and its hexadecimal digits."""
    begin = data.find(_MARK) + len(_MARK)
    place, view = slice(begin, begin + len(_BLANK)), memoryview(data)
    digest = hashlib.sha256(view[: place.start])
    digest.update(_BLANK)
    digest.update(view[place.stop :])
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
        if not isinstance(tree := unpack(data), dict):
            raise TypeError("the tree is not a dict")
        return tree
    except _MALFORMED as error:
        raise CorruptError(f"{path} was not made by this program") from error


def _encode(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; copies of its tensors go into `tensors`, each under its place, which is unique."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.dtype not in _DTYPES or value.is_meta:
            raise _unsupported(place, f"is a tensor of {value.dtype}, {value.layout} on {value.device}")
        tensors[place] = torch.empty(value.shape, dtype=value.dtype, device="cpu").copy_(value.detach())
        return {"tensor": place}
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise _unsupported(place, f"has a key {key!r} that is a {type(key).__qualname__}")
        return {"dict": [[key, _encode(item, f"{place}[{key!a}]", tensors)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{place}[{index}]", tensors) for index, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if type(value) is float and not math.isfinite(value):
        return {"float": struct.pack(">d", value).hex()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _unsupported(place, f"is a {type(value).__qualname__}")


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


def _unsupported(place: str, reason: str) -> TypeError:
    return TypeError(
        f"{place} {reason}; a checkpoint holds dicts with str or int keys, lists, tuples, dense tensors, "
        "int, float, bool, str and None: store it as those"
    )


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every checkpoint, the oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)
