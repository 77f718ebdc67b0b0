"""Atomic replacement of files, and JSON sealed with its SHA-256."""

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from optim_family.errors import CorruptError, UsageError

FORMAT = 1
# Of a path that the user may not write, or that cannot be a folder: the request is wrong, not the disk.
# A disk may become read-only during a run, which is no mistake of the request; a new folder on it is.
FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})
INVALID_PATH: Final = FORBIDDEN | {
    errno.EROFS,
    *(errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.EILSEQ, errno.EINVAL),
}
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def replace_atomically(path: Path, data: bytes | str) -> None:
    """Replace the contents of a file: after a crash it holds all of the old contents or all of the new.

    Raises:
        UsageError: the user may not write it; the old contents stay.
        CorruptError: the file cannot be written; the old contents stay.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    unwritten = memoryview(data.encode() if isinstance(data, str) else data)
    with writing(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb", buffering=0):
                while unwritten:
                    unwritten = unwritten[os.write(descriptor, unwritten) :]
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_partial_writes(*folders: Path) -> None:
    """Delete partial writes of killed processes; only for the single writer of the folders."""
    for path in (path for folder in folders for path in folder.glob(".*.tmp")):
        if is_partial_write(path.name):
            path.unlink()


def is_partial_write(name: str) -> bool:
    """Whether `replace_atomically` uses such a name for its temporary file."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def writing(path: Path, usage: Set[int] = FORBIDDEN) -> Iterator[None]:
    """Turn an OSError of the block into an error of one line.

    Raises:
        UsageError: the block raised OSError with an error number of `usage`: the user may not write the path.
        CorruptError: the block raised another OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if error.errno in usage:
            raise UsageError(
                f"{path} cannot be written ({reason}); choose another folder, or correct the permissions"
            ) from error
        raise CorruptError(
            f"{path} could not be written: {reason}; everything written so far is intact: "
            "make room, and resume"
        ) from error


def make_folder(path: Path) -> None:
    """Create a folder for results, with those above it; one that exists stays as it is.

    Raises:
        UsageError: the path cannot be a folder, or the user may not create it.
        CorruptError: the system cannot create it.
    """
    with writing(path, INVALID_PATH):
        path.mkdir(parents=True, exist_ok=True)


def seal(value: Mapping[str, Any]) -> str:
    """JSON text of `value`, without NaN or infinities, with a format number and the SHA-256 of both."""
    body = {"format": FORMAT, **value}
    digest = hashlib.sha256(json.dumps(body, allow_nan=False).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=2) + "\n"


def unseal(path: Path) -> dict[str, Any]:
    """The value that `seal` wrote to a file.

    Raises:
        CorruptError: the file is damaged, or has a newer format.
    """
    try:
        text = path.read_bytes().decode()
        value: dict[str, Any] = json.loads(text)
        version, _ = value.pop("format"), value.pop("sha256")
        intact = text == seal(value)
    except OSError as error:
        raise CorruptError(f"{path} could not be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        version, intact = FORMAT, False
    if isinstance(version, int) and version > FORMAT:
        raise CorruptError(f"{path} has format {version}, newer than {FORMAT}; use a newer optim-family")
    if not intact:
        raise CorruptError(f"{path} is damaged: its contents do not match their SHA-256")
    return value


def diff_specs(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each field in which two specifications differ: `hyper.lr: 0.1, not 0.2`."""
    lines = []
    for field in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(field), theirs.get(field)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += diff_specs(a, b, f"{prefix}{field}.")
        elif a != b:
            lines.append(f"{prefix}{field}: {json.dumps(a)}, not {json.dumps(b)}")
    return lines
