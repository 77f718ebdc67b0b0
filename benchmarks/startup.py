"""Time of commands that must answer at once (target: at most 0.3 s each)."""

import statistics
import subprocess
import sys
import time

RUNS = 9
COMMANDS = ("--help", "optimizers", "models")


def seconds(arguments: str) -> float:
    command = [sys.executable, "-m", "optim_family", *arguments.split()]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    for arguments in COMMANDS:
        seconds(arguments)  # from now on the files are in memory
    times = [{arguments: seconds(arguments) for arguments in COMMANDS} for _ in range(RUNS)]
    for arguments in COMMANDS:
        ordered = sorted(t[arguments] for t in times)
        print(
            f"  optim-family {arguments:<11} {statistics.median(ordered):6.3f} s   "
            f"(median of {RUNS}: {ordered[0]:.3f} to {ordered[-1]:.3f})"
        )
