"""From the options of `run` to a specification in which nothing is left open."""

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

import rich_click as click
from pydantic import ValidationError

from optim_family import registry
from optim_family.cli.model_options import Field, fields, mistakes
from optim_family.errors import UsageError
from optim_family.training.spec import RunSpec

# Where the command line resolves what a specification has resolved: default and meaning.
_RESOLVED: Final = {
    "limit": ("100 of digits, all of any other set", "training images, a class-balanced subset"),
    "batch_size": ("as the optimizer is meant", "mini-batch size, or full"),
    "device": ("auto, cuda if there is one", "auto, cpu, cuda or cuda:N"),
}
DIGITS_LIMIT: Final = 100  # a laptop's share for resnet18
# What decides a loss and how its sharpness is read, whoever trains it.
_OF_LOSS: Final = (
    *("model", "norm", "data", "limit", "loss", "ghost_batch", "views", "rtol", "hvp", "seed"),
    *("device", "precision"),
)
_PREFIX: Final = "hyper_"  # of click's names for hyper-parameters
_META: Final = "optim_family.hyper"


def run_fields() -> list[Field]:
    """The fields of a specification that have an option of their own."""
    found = []
    for field in fields(RunSpec):
        default, meaning = _RESOLVED.get(field.name, (field.default, field.meaning))
        found.append(replace(field, default=default, meaning=meaning))
    return [field for field in found if field.name != "hyper"]


def loss_fields() -> list[Field]:
    """Those that say which loss is measured, and how."""
    return [field for field in run_fields() if field.name in _OF_LOSS]


def hyper_fields(name: str, taken: Sequence[str]) -> list[Field]:
    """The hyper-parameters of an optimizer; one that is named like an option of `run` carries its name."""
    return fields(registry.load(name).Hyper, taken=taken, prefix=name)


@final
class RunCommand(click.RichCommand):
    """`run`: its options include the hyper-parameters of the optimizer that is named among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as ever, but know the hyper-parameters.

        Raises:
            UsageError: an option is neither one of `run` nor a hyper-parameter.
            PluginError: the optimizer cannot be imported.
        """
        name = None if ctx.resilient_parsing else _named(args)
        if name is not None:
            panel = f"Hyper-parameters of {name}"
            hyper = hyper_fields(name, _flags(self.params))
            ctx.meta[_META] = [field.option(_PREFIX + field.name, panel) for field in hyper]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise UsageError(_no_such_option(error.option_name, name, self.get_params(ctx))) from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of `run`, and those of the optimizer."""
        return [*super().get_params(ctx), *ctx.meta.get(_META, ())]


def run_spec_from_options(
    given: Mapping[str, Any], saved: Mapping[str, Any]
) -> tuple[RunSpec, Callable[..., Any]]:
    """The specification of the options, and a function that makes its optimizer from tensors.

    `saved` holds the values of options that are left out.

    Raises:
        UsageError: no or no such optimizer, or wrong values: all of them, in one line.
        PluginError: the optimizer cannot be imported.
    """
    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    hyper = {key.removeprefix(_PREFIX): chosen.pop(key) for key in list(chosen) if key.startswith(_PREFIX)}
    known = run_fields()
    name = chosen.get("optimizer") or saved.get("optimizer")
    if name is None:
        raise UsageError(f"run needs --optimizer, one of {', '.join(registry.entries())}")
    optimizer = registry.load(name)
    wrong: list[str] = []
    values = {"batch_size": optimizer.batch_size, "device": "auto", **saved, **chosen, "hyper": {}}
    try:
        full = optimizer.Hyper.model_validate({**saved.get("hyper", {}), **hyper})
        values["hyper"] = full.model_dump(mode="json")
    except ValidationError as error:
        wrong += mistakes(error, hyper_fields(name, [field.flag for field in known]))
    try:
        spec = RunSpec.model_validate(_resolved(values))
    except ValidationError as error:
        wrong += mistakes(error, known)
    if wrong:
        raise UsageError("; ".join(wrong))
    return spec, lambda tensors: optimizer(tensors, full)


def loss_spec_from_options(given: Mapping[str, Any]) -> RunSpec:
    """The loss that the options ask for, as a specification without an optimizer.

    Raises:
        UsageError: wrong values: all of them, in one line.
    """
    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    values = {"optimizer": "", "hyper": {}, "batch_size": None, "device": "auto", **chosen}
    try:
        return RunSpec.model_validate(_resolved(values))
    except ValidationError as error:
        raise UsageError("; ".join(mistakes(error, loss_fields()))) from None


def saved_spec(out: Path) -> dict[str, Any]:
    """The specification that a run directory holds.

    Raises:
        UsageError: it is none.
        CorruptError: it is damaged.
    """
    from optim_family.runs.run import read_run

    return read_run(out).spec


def _resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    if found.get("limit") is None and found.get("data", "digits") == "digits":
        found["limit"] = DIGITS_LIMIT
    if found["batch_size"] == "full":
        found["batch_size"] = None
    if found["device"] == "auto":
        found["device"] = _device()
    if found.get("views"):
        found["views"] = [name for text in found["views"] for name in text.split(",")]
    return found


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _named(args: Sequence[str]) -> str | None:
    """The optimizer that the arguments name, themselves or through the run that they resume."""
    name = _value(args, "--optimizer")
    out = _value(args, "--out")
    if name is None and out is not None and "--resume" in args:
        return str(saved_spec(Path(out))["optimizer"])
    return name


def _value(args: Sequence[str], flag: str) -> str | None:
    """What the last `--flag VALUE` or `--flag=VALUE` says."""
    found = None
    for argument, following in itertools.zip_longest(args, args[1:]):
        if argument == flag:
            found = following
        elif argument.startswith(f"{flag}="):
            found = argument.partition("=")[2]
    return found


def _flags(parameters: Sequence[click.Parameter]) -> list[str]:
    return [flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)]


def _no_such_option(option: str, optimizer: str | None, parameters: Sequence[click.Parameter]) -> str:
    hyper = [each for each in parameters if str(each.name).startswith(_PREFIX)]
    near = difflib.get_close_matches(option, _flags(parameters), n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if optimizer is None:
        return f"run has no option {option!r}{hint} With --optimizer NAME it has its hyper-parameters too"
    return (
        f"{optimizer} has no hyper-parameter {option.lstrip('-')!r}{hint} It has {', '.join(_flags(hyper))}"
    )
