"""A run directory: a single writer, a log that only grows, and files that are replaced atomically."""

import errno
import fcntl
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, final

from optim_family.errors import BusyError, CorruptError, UsageError
from optim_family.runs.atomic_files import (
    INVALID_PATH,
    diff_specs,
    is_partial_write,
    remove_partial_writes,
    replace_atomically,
    seal,
    unseal,
    writing,
)
from optim_family.runs.layout import CHECKPOINTS, LOCK, LOG, SPEC, STATUS
from optim_family.runs.record_log import RecordLog, finite


@final
class RunStore(AbstractContextManager["RunStore"]):
    """The single writer of a run directory: holds its lock and appends to its log.

    The lock is released at the end of the context, and when the process dies.
    """

    def __init__(self, path: Path, log: RecordLog, resources: ExitStack) -> None:
        """Use `open`."""
        self.path, self._log, self._resources = path, log, resources

    @classmethod
    def open(cls, path: Path, spec: Mapping[str, Any]) -> Self:
        """Become the writer of `path`, which is created if it does not exist.

        A truncated last record and partial writes of a killed process are removed.

        Args:
            path: a new or empty folder, or the directory of this run.
            spec: the specification, as JSON.

        Raises:
            BusyError: another process is the writer.
            UsageError: the folder holds other files, or a run with another specification, or the user may not
                write it.
            CorruptError: the folder cannot be written, or the run is damaged.
        """
        _enter(path)
        if (path / CHECKPOINTS).is_symlink():
            raise UsageError(
                f"{path / CHECKPOINTS} is a symbolic link, not a folder of the run: choose another folder"
            )
        with writing(path), ExitStack() as resources:
            resources.callback(os.close, _lock(path / LOCK))
            stored_spec = json.loads(json.dumps(finite(spec)))
            if not (path / SPEC).exists():
                replace_atomically(path / SPEC, seal(stored_spec))
            if fields := diff_specs(unseal(path / SPEC), stored_spec):
                raise UsageError(f"{path} holds a different run ({'; '.join(fields)}); choose another folder")
            log = RecordLog(path / LOG, log_start(path))
            resources.callback(log.close)
            require_records(path, unseal_if_any(path / STATUS), log.count)
            remove_partial_writes(path, path / CHECKPOINTS)
            return cls(path, log, resources.pop_all())

    def append(self, record: Mapping[str, Any], *, must_match: bool = True) -> bool:
        """Add one record to the log by a single write; NaN and infinities become null.

        A resumed run repeats the records after its checkpoint. They are compared with the stored ones, and
        must be equal except for timings.

        Args:
            record: JSON, with an integer `step` that grows from record to record.
            must_match: whether a repeated record must be equal to the stored one.

        Returns:
            Whether the record is new.

        Raises:
            CorruptError: the log cannot be written, or holds another record of this step.
        """
        return self._log.append(record, must_match=must_match)

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace one JSON file of the directory, once all records so far are on the disk.

        `status.json` also holds the number of `records`, so that a log that lost its end is detected.

        Raises:
            CorruptError: the file cannot be written.
        """
        self._log.sync()
        count = {"records": self._log.count} if name == STATUS else {}
        replace_atomically(self.path / name, seal(finite({**value, **count})))

    def close(self) -> None:
        """Release the lock; closing twice is harmless."""
        self._resources.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


def require_possible(path: Path) -> None:
    """Check that `path` is empty or a run, or that it can be created; creates nothing that stays.

    Raises:
        UsageError: it cannot be a run directory, holds other files, or the user may not write there.
        CorruptError: the system cannot write there.
    """
    with _run_directory(path):
        exists = path.exists()
        if not exists:
            parent = next(folder for folder in path.absolute().parents if folder.exists())
            trial = parent / f".{secrets.token_hex(8)}.tmp"  # another process may be creating `path`
            trial.mkdir()
            trial.rmdir()
    if exists:
        _enter(path)


def _enter(path: Path) -> None:
    """Create the folder, or check that it is empty or a run."""
    with _run_directory(path):
        path.mkdir(parents=True, exist_ok=True)
        names = {name for name in os.listdir(path) if name != LOCK and not is_partial_write(name)}
    if names and SPEC not in names:
        raise UsageError(f"{path} is neither empty nor a run directory; choose another folder")


@contextmanager
def _run_directory(path: Path) -> Iterator[None]:
    """Turn the error of a path that cannot be a folder into one of one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        number, reason = getattr(error, "errno", errno.EINVAL), getattr(error, "strerror", error)
        raise (UsageError if number in INVALID_PATH else CorruptError)(
            f"{str(path)!r} cannot be a run directory: {reason}; choose another folder"
        ) from error


def _lock(path: Path) -> int:
    """Lock a file and write the name of this process into it; returns its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
    except BaseException as error:
        holder = os.pread(descriptor, 100, 0).decode(errors="replace")
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise
        who = holder if re.fullmatch(r"process \d+ on [\w.-]+", holder) else "another process"
        raise BusyError(f"{path.parent} is in use by {who}; wait for it, or choose another folder") from error
    return descriptor


def log_start(path: Path) -> int:
    """The start value of the CRCs of the log, so that the log of another run does not match."""
    return zlib.crc32((path / SPEC).read_bytes())


def unseal_if_any(path: Path) -> dict[str, Any]:
    """The sealed value of a file; empty if there is no file."""
    return unseal(path) if path.exists() else {}


def require_records(path: Path, status: Mapping[str, Any], count: int) -> None:
    """Raise CorruptError if there are fewer records than the status counted."""
    if count < status.get("records", 0):
        raise CorruptError(
            f"{path / LOG} is truncated: it has {count} records, but {STATUS} counts {status['records']}; "
            "repeat the run in a new folder"
        )
