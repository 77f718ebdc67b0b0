"""`--threads`, and a warning where other programs keep the cores busy: threads that wait cost most there."""

import os
import sys

import psutil
import rich_click as click

from optim_family.resources import thread_limit


def _use(ctx: click.Context, parameter: click.Parameter, threads: int | None) -> None:
    """Set the threads before torch is loaded; without a number say so if the machine is busy."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
    elif warning := busy_warning():
        ctx.obj.say(warning)


threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    expose_value=False,
    callback=_use,
    help="CPU threads (default: OMP_NUM_THREADS, or one for each core).",
)


def busy_warning() -> str | None:
    """One line if other programs keep all cores busy, and several threads would wait for each other."""
    load, cores = psutil.getloadavg()[0], psutil.cpu_count() or 1
    threads = thread_limit() or cores
    if threads <= 1 or load < cores:
        return None
    return (
        f"the load of this machine is {load:.1f} on {cores} cores: {threads} threads may be many times "
        "slower than --threads 1"
    )
