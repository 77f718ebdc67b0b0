"""Measure one model in a process of its own, so that a crash or a slow model costs one row.

The process is `python -m optim_family.conformance.model_process MODEL SECONDS`: it writes the row as one line
of JSON; other output is discarded.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from optim_family.conformance import runner
from optim_family.conformance.model_rows import Row
from optim_family.errors import one_line
from optim_family.runs.record_log import finite

PROGRAM: Final = (sys.executable, "-m", "optim_family.conformance.model_process")
POLL_SECONDS: Final = 0.2
_REASON_LENGTH: Final = 300  # characters
_THREADS: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure_model(
    model: str, seconds: int, on_poll: Callable[[], object], program: Sequence[str] = PROGRAM
) -> Row:
    """The row of a model: its numbers, or under `refused` why there are none.

    Args:
        model: SOURCE/NAME.
        seconds: limit of processor time, with the imports.
        on_poll: called several times a second; if it raises, the process is killed.
        program: the command of the process, which gets the model and the limit.
    """
    process = subprocess.Popen(
        [*program, model, str(seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_THREADS},
        start_new_session=True,  # Ctrl-C reaches this process, which then kills that one
    )
    try:
        output = _output(process, on_poll)
    finally:
        runner.kill(process)
    try:
        return {"model": model, **json.loads(output)}
    except ValueError:
        return {"model": model, **_no_row(process.returncode, seconds)}


def _output(process: "subprocess.Popen[bytes]", on_poll: Callable[[], object]) -> bytes:
    """Stdout, when the process has ended."""
    while True:
        on_poll()
        try:
            return process.communicate(timeout=POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            pass


def _no_row(code: int, seconds: int) -> Row:
    """Why a process wrote no row."""
    if code == -signal.SIGXCPU:
        return {"refused": f"more than {seconds} s of a core", "limit": seconds}
    if code < 0:
        return {"refused": f"its process was killed by {signal.Signals(-code).name}"}
    return {"refused": f"its process ended with exit code {code}"}


def _main(model: str, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    row = _row(model)
    print(json.dumps(finite(row), allow_nan=False), file=stdout, flush=True)


def _row(model: str) -> dict[str, Any]:
    import torch

    from optim_family.conformance.eigenvalue_check import check_eigenvalue
    from optim_family.networks.families import catalogue

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        row = check_eigenvalue(catalogue.build(model))
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        row = {"refused": reason[:_REASON_LENGTH]}
    return {**row, "seconds": round(time.process_time(), 1)}


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
