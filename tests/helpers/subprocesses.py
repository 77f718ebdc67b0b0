"""Processes that work on a run and are disturbed: forked from one that has imported everything already."""

import atexit
import multiprocessing
import os
import sys
import time
from pathlib import Path

import optim_family
from optim_family.errors import OptimFamilyError
from optim_family.operators import HookedOperator
from optim_family.runs.record_log import RecordLog
from optim_family.runs.run import read_run
from optim_family.runs.store import RunStore
from optim_family.training import checkpoint, loop, resume
from optim_family.training.loop import train
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal
from tests.helpers import ROOT, training_runs
from tests.helpers.training_runs import untimed

SERVER = multiprocessing.get_context("forkserver")
IMPORTED = "optim_family.training.loop optim_family.optimizers.gd optim_family.optimizers.rmsprop timm"
SERVER.set_forkserver_preload(
    [__name__, *IMPORTED.split(), "torchvision.datasets", "sklearn.datasets", "sklearn.model_selection"]
)
os.environ["PYTHONPATH"] = os.pathsep.join(  # for the server, which finds this module by name
    [
        str(Path(optim_family.__file__).parents[1]),
        str(ROOT),
        os.environ.get("PYTHONPATH", ""),
    ]
)
# The call that a phase begins with.
PHASES = {
    "training": (loop.Trainer, "step"),
    "measuring": (HookedOperator, "apply"),
    "checkpointing": (os, "fsync"),
    "renaming": (os, "replace"),
    "recording": (RecordLog, "append"),
    "resuming": (resume.Checkpoints, "load"),
}


def spec(optimizer="gd", **changes) -> RunSpec:
    """A run that is short enough to be repeated hundreds of times."""
    return training_runs.spec(optimizer, **({"limit": 20, "steps": 6} | changes))


def start(target, *args):
    """A process that runs target(tell, stop, *args) and is about to; its exit code is what that returns.

    `process.notices` is the end of a pipe on which it sends a notice of each moment.
    """
    here, there = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_begin, args=(there, target, args))
    process.start()
    atexit.register(process.kill)  # a test that failed leaves it behind, and it minds no SIGTERM
    there.close()
    process.notices = here
    assert here.recv_bytes() == b"about to"
    return process


def _begin(pipe, target, args):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with StopSignal().install() as stop:
        pipe.send_bytes(b"about to")
        try:
            target(lambda: pipe.send_bytes(b"now"), stop, *args)
        except OptimFamilyError as error:
            sys.exit(error.exit_code)


def ended(process):
    """Wait for its end; the exit code."""
    process.join(120)
    process.notices.close()
    return process.exitcode


def signalled(process, number, pause):
    """Send a signal a moment after the process told of its moment, and wait; whether it came in time."""
    try:
        process.notices.recv_bytes()
    except EOFError:
        return False
    time.sleep(pause)
    os.kill(process.pid, number)
    return ended(process) != 0


def work(tell, stop, text, folder, seconds):
    """Carry out a run, or what is left of it, with a checkpoint every so many seconds."""
    loop.CHECKPOINT_SECONDS = seconds
    train(RunSpec.model_validate_json(text), Path(folder), resume=True, stop=stop)


def telling(tell, stop, text, folder, seconds, phase, nth):
    """The same, and tell when one phase is reached for the n-th time."""
    owner, name = PHASES[phase]
    real, left = getattr(owner, name), [nth]

    def observed(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            tell()
        return real(*args, **kwargs)

    setattr(owner, name, observed)
    work(tell, stop, text, folder, seconds)


def hold(tell, stop, folder):
    """Be the writer of a run directory until killed."""
    with RunStore.open(Path(folder), {"optimizer": "gd"}):
        (Path(folder).parent / f"writer-{os.getpid()}").touch()
        while True:
            time.sleep(10)


def result(folder):
    """All that must be equal to the last bit: the records but for their timing, and the weights."""
    _, tree = checkpoint.load_latest(folder / "checkpoints", print)
    weights = {name: tensor.numpy().tobytes() for name, tensor in tree["model"].items()}
    run = read_run(folder)
    return run.status["status"], [untimed(record) for record in run.records], weights
