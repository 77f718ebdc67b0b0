"""One run in a process of its own: `python -m optim_family.study.worker FOLDER`, its specification on stdin.

Exits with the code that `optim-family run` would; the last line on stderr says what went wrong. When the
process that started it is gone, and with it the other end of stdin, it leaves a checkpoint and stops.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from optim_family.errors import OptimFamilyError, one_line
from optim_family.runs.atomic_files import unseal
from optim_family.training.spec import RunSpec

DIVERGED = 3


def main(folder: Path) -> int:
    """Carry out the run that stdin describes, or what is left of it; the exit code."""
    spec = RunSpec.model_validate_json(sys.stdin.readline())
    threading.Thread(target=stop_when_alone, daemon=True).start()
    try:
        return _carry_out(spec, folder)
    except OptimFamilyError as error:
        print(one_line(error), file=sys.stderr)
        return error.exit_code


def _carry_out(spec: RunSpec, folder: Path) -> int:
    from optim_family.training.loop import train
    from optim_family.training.stop_signal import StopSignal

    with StopSignal().install() as stop:
        outcome = train(resolved(spec, folder), folder, resume=True, stop=stop)
    return DIVERGED if outcome.status == "diverged" else 0


def resolved(spec: RunSpec, folder: Path | None = None) -> RunSpec:
    """The run with its device: the one it began on in `folder`, or for `auto` the GPU if there is one."""
    import torch

    begun = folder and folder / "spec.json"
    if begun and begun.exists():
        device = unseal(begun)["device"]
    else:
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        device = auto if spec.device == "auto" else spec.device
    return spec.model_copy(update={"device": device})


def stop_when_alone() -> None:
    """Wait until nobody holds the other end of stdin; then stop this process as SIGTERM does."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
