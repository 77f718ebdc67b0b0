"""The command `optim-family`: its commands, its error messages and its exit codes."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Final, NoReturn, final

import rich_click as click

from optim_family import __version__
from optim_family.cli.lazy_groups import CommandGroup
from optim_family.cli.output import Output
from optim_family.errors import OptimFamilyError, UsageErrors, one_line

SUMMARIES: Final = {
    "run": "Train one optimizer on one model, and measure its sharpness.",
    "compare": "Compare several runs in one figure and one table.",
    "serve": "Show runs in the browser while they train.",
    "study": "Run a study, show its progress, write its report.",
    "export": "Export runs to TensorBoard, MLflow, W&B or Parquet.",
    "measure": "Measure the sharpness at weights from a file.",
    "verify": "Check the theory numerically with the real optimizers.",
    "flow": "Draw the sharpness-reduction flow next to gradient descent.",
    "optimizers": "List, show or check optimizers, or start a new one.",
    "models": "List the models, show one, or check them.",
    "data": "List the data sets, show one, or fetch it.",
    "doctor": "Check this machine and the installation.",
}


@click.group(
    cls=CommandGroup,
    package=f"{__name__}.commands",
    summaries=SUMMARIES,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: optim-family run --optimizer rmsprop --model resnet18",
)
@click.version_option(__version__, prog_name="optim-family")
def group() -> None:
    """Compare optimizers by the sharpness they reach, each in its own geometry."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 failed, 2 usage, 3 diverged, …; see `optim_family.errors`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by some batch systems: work in silence
            setattr(sys, name, Path(os.devnull).open("w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # η in a terminal that has no η
    output = Output()
    notice = TorchNotice(output)
    sys.meta_path.insert(0, notice)
    try:
        exit_code = group.main(args, prog_name="optim-family", standalone_mode=False, obj=output)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader closed the pipe
        sys.exit(1)
    except Exception as error:
        if output.debug:
            traceback.print_exception(error)
        exit_code, text = _explain(error)
        for line in text.splitlines() if isinstance(error, UsageErrors) else [text]:
            print(f"optim-family: {one_line(line)}", file=sys.stderr)
    finally:
        sys.meta_path.remove(notice)
    sys.exit(exit_code if isinstance(exit_code, int) else 0)


@final
class TorchNotice(MetaPathFinder):
    """Finds no module; says once in a terminal that torch is loading, which takes seconds."""

    def __init__(self, output: Output) -> None:
        self.output, self.printed = output, False

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """None: the other finders look for the module."""
        if fullname == "torch" and not self.printed and sys.stderr.isatty():
            self.printed = True
            self.output.say("loading torch …")


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code and the message."""
    if isinstance(error, click.Abort):
        return 130, "interrupted"
    if isinstance(error, OptimFamilyError):
        return error.exit_code, str(error)
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return 1, f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return 1, f"{text}; `optim-family doctor` may say why, --debug gives the traceback"
