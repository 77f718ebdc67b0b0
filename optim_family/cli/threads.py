"""`--threads`, and a warning where other programs keep the cores busy: threads that wait cost most there."""

import psutil
import rich_click as click

from optim_family.cli.output import Output

threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads (default: those of torch, one for each core)."
)


def use_threads(threads: int | None, output: Output) -> None:
    """Use so many threads of the CPU; without a number keep those of torch, and say so on a busy machine."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    elif warning := busy_warning(torch.get_num_threads()):
        output.say(warning)


def busy_warning(threads: int) -> str | None:
    """One line if other programs keep all cores busy, and several threads would wait for each other."""
    load, cores = psutil.getloadavg()[0], psutil.cpu_count() or 1
    if threads == 1 or load < cores:
        return None
    return (
        f"the load of this machine is {load:.1f} on {cores} cores: {threads} threads may be many times "
        "slower than --threads 1"
    )
