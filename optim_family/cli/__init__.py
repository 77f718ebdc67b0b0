"""The command `optim-family`: what it can do, and what it answers when something goes wrong."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final, NoReturn

import rich_click as click

from optim_family import __version__
from optim_family.cli.lazy_groups import LazyGroup
from optim_family.cli.output import Output
from optim_family.cli.waiting import noticed
from optim_family.errors import OptimFamilyError, one_line

SENTENCES: Final = {
    "run": "Train one optimizer on one model, and measure its sharpness.",
    "compare": "Draw several runs in one figure, and list them in one table.",
    "study": "Run a whole study, see how it stands, write its report.",
    "export": "Hand runs over to TensorBoard, MLflow, W&B, or as Parquet.",
    "measure": "Measure the sharpness of weights that you bring.",
    "verify": "Check what the theory says with the real optimizers.",
    "flow": "Draw the sharpness-reduction flow beside gradient descent.",
    "optimizers": "List the optimizers, or show one in full.",
    "models": "List the models, show one, or check its scale invariance.",
    "data": "List the data sets, show one, or fetch it.",
    "doctor": "Say what this machine can do, and what is wrong with it.",
}


@click.group(
    cls=LazyGroup,
    package=f"{__name__}.commands",
    sentences=SENTENCES,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: optim-family run --optimizer rmsprop --model resnet18",
)
@click.version_option(__version__, prog_name="optim-family")
def group() -> None:
    """Compare optimizers by the sharpness they reach, each in its own geometry."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 failed, 2 usage, 3 diverged, …; see `optim_family.errors`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # η in a terminal that has no η
    output = Output()
    patience = (
        noticed("torch", lambda: output.say("loading torch …")) if sys.stderr.isatty() else nullcontext()
    )
    try:
        with patience:
            answer = group.main(args, prog_name="optim-family", standalone_mode=False, obj=output)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing to say
        sys.exit(1)
    except Exception as error:
        sys.exit(_failed(error, output))
    sys.exit(answer if isinstance(answer, int) else 0)


def _failed(error: Exception, output: Output) -> int:
    """Say in one line what went wrong; the exit code."""
    if output.debug:
        traceback.print_exception(error)
    code, text = _explained(error)
    print(f"optim-family: {one_line(text)}", file=sys.stderr)
    return code


def _explained(error: Exception) -> tuple[int, str]:
    """The exit code, and one line."""
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
