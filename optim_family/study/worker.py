"""Execute one run in its own process: `python -m optim_family.study.worker FOLDER`, its spec on stdin.

The exit codes are those of `optim-family run`; the last line on stderr says what went wrong. When the process
that started it ends, and with it the other end of stdin, the worker writes a checkpoint and stops.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from optim_family.errors import DIVERGED, OptimFamilyError, one_line
from optim_family.runs import layout
from optim_family.runs.atomic_files import unseal
from optim_family.training.spec import RunSpec, default_device


def main(folder: Path) -> int:
    """Execute or resume the run that stdin specifies; return the exit code."""
    spec = RunSpec.model_validate_json(sys.stdin.readline())
    threading.Thread(target=stop_when_orphaned, daemon=True).start()
    try:
        return _train(spec, folder)
    except OptimFamilyError as error:
        print(one_line(error), file=sys.stderr)
        return error.exit_code


def _train(spec: RunSpec, folder: Path) -> int:
    from optim_family.training.loop import train
    from optim_family.training.stop_signal import StopSignal

    with StopSignal().install() as stop:
        status = train(resolve_device(spec, folder), folder, resume=True, stop=stop)
    return DIVERGED if status == "diverged" else 0


def resolve_device(spec: RunSpec, folder: Path | None = None) -> RunSpec:
    """Set the device: the one on which the run in `folder` began; else for `auto` the GPU if there is one."""
    device = spec.device
    if folder and (folder / layout.SPEC).exists():
        device = unseal(folder / layout.SPEC)["device"]
    elif device == "auto":
        device = default_device()
    return spec.model_copy(update={"device": device})


def stop_when_orphaned() -> None:
    """Wait until the other end of stdin is closed, then stop this process as SIGTERM does."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
