"""From the options of `run` to a specification in which every field has its value."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

import rich_click as click
from pydantic import ValidationError

from optim_family import registry
from optim_family.cli.model_options import Field, fields, mistakes
from optim_family.cli.output import Decorator
from optim_family.errors import UsageError
from optim_family.runs.run import read_run
from optim_family.training.spec import RunSpec, default_device

# Fields whose default is computed when the command runs: the help of their options.
_RESOLVED: Final[dict[str, dict[str, Any]]] = {
    "limit": {
        "default": "100 of digits, all of any other set",
        "meaning": "training images, a class-balanced subset",
    },
    "batch_size": {"default": "that of the optimizer", "meaning": "mini-batch size, or full"},
    "device": {"default": "auto, cuda if there is one", "meaning": "auto, cpu, cuda or cuda:N"},
}
DIGITS_LIMIT: Final = 100  # few enough for resnet18 on a laptop
# The fields that determine a loss and how its sharpness is measured, with any optimizer or none.
_LOSS_FIELDS: Final = (
    *("model", "norm", "data", "limit", "loss", "ghost_batch", "views", "rtol", "hvp", "seed", "reading"),
    *("device", "precision"),
)
# Names that other tools have for our options.
_SYNONYMS: Final = {
    **{
        "--wd": "--weight-decay",
        "--decay": "--weight-decay",
        "--learning-rate": "--lr",
        "--bs": "--batch-size",
    },
    **{"--epochs": "--steps", "--iterations": "--steps", "--dataset": "--data", "--network": "--model"},
}
_PREFIX: Final = "hyper_"  # of click's names for hyper-parameters
_META: Final = "optim_family.hyper"


def run_fields() -> list[Field]:
    """The fields of a specification that have an option of their own."""
    own = (field for field in fields(RunSpec) if field.name != "hyper")
    return [replace(field, **_RESOLVED.get(field.name, {})) for field in own]


def loss_fields() -> list[Field]:
    """The fields that determine the loss and how its sharpness is measured."""
    return [field for field in run_fields() if field.name in _LOSS_FIELDS]


def hyper_fields(name: str, flags: Sequence[str]) -> list[Field]:
    """The hyper-parameters of an optimizer; a flag that `run` has already carries the optimizer's name."""
    return fields(registry.load(name).Hyper, other_flags=flags, prefix=name)


DRY_RUN: Final = "--dry-run"


def dry_run_option(text: str) -> Decorator:
    """`--dry-run`, whose value is `try` or, of `--dry-run=plan`, `plan`; its command is a `DryRunCommand`."""
    return click.option(DRY_RUN, type=click.Choice(["try", "plan"]), metavar="[=plan]", help=text)


@final
class DryRunCommand(click.RichCommand):
    """A command with a dry run: `--dry-run` takes no value from the next argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the value of `--dry-run` written out."""
        return super().parse_args(ctx, _with_dry_run_value(args))


def _with_dry_run_value(args: Sequence[str]) -> list[str]:
    return [f"{DRY_RUN}=try" if arg == DRY_RUN else arg for arg in args]


@final
class RunCommand(click.RichCommand):
    """`run`: its options include the hyper-parameters of the optimizer that is named among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with the hyper-parameters among the options.

        Raises:
            UsageError: an option is neither one of `run` nor a hyper-parameter.
            PluginError: the optimizer cannot be imported.
        """
        args = _with_dry_run_value(args)
        name = None if ctx.resilient_parsing else self._optimizer(ctx, args)
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

    def _optimizer(self, ctx: click.Context, args: Sequence[str]) -> str | None:
        """The optimizer that the arguments name, directly or by the run that they resume."""
        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True  # the hyper-parameters
        options, _, _ = parser.parse_args(list(args))
        name: str | None = options.get("optimizer")
        if name is None and options.get("resume") and options.get("out"):
            name = read_run(Path(options["out"])).spec["optimizer"]
        return name


def run_spec_from_options(
    options: Mapping[str, Any], resumed: Path | None
) -> tuple[RunSpec, Callable[..., Any]]:
    """The specification of the options, and a function that makes its optimizer from tensors.

    Args:
        options: of `run`; the hyper-parameters among them carry a prefix.
        resumed: a run directory; without `optimizer`, its specification replaces the defaults.

    Raises:
        UsageError: no or no such optimizer, or wrong values: all of them, in one line.
        PluginError: the optimizer cannot be imported.
    """
    resumed_spec = read_run(resumed).spec if resumed and not options["optimizer"] else {}
    values = {**resumed_spec, **_set_options(options)}
    if "optimizer" not in values:
        raise UsageError(f"run needs --optimizer, one of {', '.join(registry.entries())}")
    optimizer, known, wrong = registry.load(values["optimizer"]), run_fields(), list[str]()
    hyper = {key.removeprefix(_PREFIX): values.pop(key) for key in list(values) if key.startswith(_PREFIX)}
    try:
        hyper_parameters = optimizer.Hyper.model_validate({**resumed_spec.get("hyper", {}), **hyper})
        values["hyper"] = hyper_parameters.model_dump(mode="json")
    except ValidationError as error:
        values["hyper"] = {}
        wrong += mistakes(error, hyper_fields(values["optimizer"], [field.flag for field in known]))
    try:
        spec = RunSpec.model_validate(_resolved({"batch_size": optimizer.batch_size, **values}))
    except ValidationError as error:
        wrong += mistakes(error, known)
    if wrong:
        raise UsageError("; ".join(wrong))
    return spec, lambda tensors: optimizer(tensors, hyper_parameters)


def loss_spec_from_options(options: Mapping[str, Any]) -> RunSpec:
    """The loss of the options, as a specification without an optimizer.

    Raises:
        UsageError: wrong values: all of them, in one line.
    """
    values = {"optimizer": "", "hyper": {}, **_set_options(options)}
    try:
        return RunSpec.model_validate(_resolved(values))
    except ValidationError as error:
        raise UsageError("; ".join(mistakes(error, loss_fields()))) from None


def _set_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value not in (None, ())}


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a specification, where `auto`, `full` and the commas of --view are replaced."""
    if values.get("limit") is None and values.get("data", "digits") == "digits":
        values["limit"] = DIGITS_LIMIT
    if values.get("batch_size") == "full":
        values["batch_size"] = None
    if values.get("device", "auto") == "auto":
        values["device"] = default_device()
    if values.get("views"):
        values["views"] = [name for text in values["views"] for name in text.split(",")]
    return values


def _flags(parameters: Sequence[click.Parameter]) -> list[str]:
    return [flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)]


def _no_such_option(option: str, optimizer: str | None, parameters: Sequence[click.Parameter]) -> str:
    flags = _flags(parameters)
    near = [_SYNONYMS[option]] if _SYNONYMS.get(option) in flags else []
    near = near or difflib.get_close_matches(option, flags, n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if optimizer is None:
        return f"run has no option {option!r}{hint} With --optimizer NAME it has its hyper-parameters too"
    hyper = _flags([parameter for parameter in parameters if str(parameter.name).startswith(_PREFIX)])
    return f"{optimizer} has no hyper-parameter {option.lstrip('-')!r}{hint} It has {', '.join(hyper)}"
