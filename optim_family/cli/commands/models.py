"""`optim-family models`: list the cards, show one in full, check one, or check the measurement on many."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import rich_click as click

from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import FOLDER, Output, common, flat
from optim_family.errors import UsageError
from optim_family.networks import cards

if TYPE_CHECKING:
    from optim_family.networks.scale_invariance import ScaleInvariance


@listing("models")
def command(output: Output) -> None:
    """List the model cards. `timm:NAME` is any backbone of timm, PATH.toml a card of your own."""
    summaries = cards.summaries()
    values = [{"name": name, "summary": text} for name, text in summaries.items()]
    output.result(values, ["model", "summary"], list(summaries.items()))
    if not output.json:
        output.say("\nAlso timm:NAME for any backbone of timm, and PATH.toml for a card of your own.")


@command.subcommand("show")
def show(output: Output, name: str) -> None:
    """Show one card in full: the source of the network, and the changes made to it."""
    card = asdict(cards.load(name))
    output.result(card, ["", name], [pair for pair in flat(card) if pair[0] != "name"])


@command.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
@click.option(
    "--norm",
    type=click.Choice(get_args(cards.Norm)),
    help="Normalisation layers: γ and β frozen, trained, or no layers (default frozen-affine).",
)
@click.option("--size", type=click.IntRange(1), help="Side of the images in pixels (default 16, timm: 32).")
@click.option("--sweep", is_flag=True, help="Check the measurement instead, on any number of models.")
@click.option("--to", type=FOLDER, help="With --sweep: folder of its results (default runs/sweep).")
@click.option(
    "--seconds", type=click.IntRange(1), help="With --sweep: processor time for one model (default 300)."
)
@click.option("--dry-run", is_flag=True, help="With --sweep: list the models and measure nothing.")
def check(output: Output, names: tuple[str, ...], sweep: bool, **options: Any) -> int:
    """Check whether a model is exactly scale-invariant; exit 1 if its card requires it and it is not.

    If all trained weights are doubled, the loss must stay equal and the gradient must halve.

    With --sweep check that λ₁ of one small model of every family of torch, transformers, timm and torchvision
    equals a difference of gradients, and that measuring it changes nothing; exit 1 otherwise. NAMEs select
    models: timm/resnet18, 'torch/*'. Repeat the command to resume.
    """
    invariance, sweeping = ({key: options[key] for key in keys} for keys in _OPTIONS)
    if sweep:
        _refuse("with --sweep", invariance)
        return _sweep(output, names, **sweeping)
    _refuse("without --sweep", sweeping)
    if len(names) != 1:
        raise UsageError("models check takes one NAME; with --sweep any number of them, or none for all")
    return _check_invariance(output, names[0], **invariance)


_OPTIONS: Final = (("norm", "size"), ("to", "seconds", "dry_run"))  # of the two checks


def _refuse(when: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError if one of these options is set."""
    for name in (name for name, value in options.items() if value):
        raise UsageError(f"models check {when} takes no --{name.replace('_', '-')}; leave it out")


def _sweep(
    output: Output, names: tuple[str, ...], to: Path | None, seconds: int | None, dry_run: bool
) -> int:
    from optim_family.cli import model_sweep

    model_sweep.sweep(output, names, to or model_sweep.FOLDER, seconds or model_sweep.SECONDS, dry_run)
    return 0


def _check_invariance(output: Output, name: str, norm: cards.Norm | None, size: int | None) -> int:
    """Print the verdicts in both precisions; returns the exit code."""
    norm = norm or "frozen-affine"
    required = cards.load(name).expect.invariant if norm == "frozen-affine" else None
    side = size or (32 if name.startswith("timm:") else 16)
    results = {precision: _check(name, norm, side, precision) for precision in ("float32", "float64")}
    holds = required is None or all(result.exact for result in results.values())
    facts = {precision: asdict(result) for precision, result in results.items()}
    value = {"model": name, "norm": norm, "required": required, "holds": holds, "verdicts": facts}
    output.result(value, ["precision", "verdict"], [[key, result.summary] for key, result in results.items()])
    if not output.json:
        outcome = f"{required} invariance, which {'holds' if holds else 'does not hold'}"
        output.say(f"The card of {name} requires {outcome if required else 'no scale invariance here'}.")
    return 0 if holds else 1


def _check(model: str, norm: cards.Norm, side: int, precision: str) -> "ScaleInvariance":
    """Half the squared error on eight random images of ten classes, doubled weights against plain ones."""
    import torch

    from optim_family.networks import build, scale_invariance

    dtype = getattr(torch, precision)
    network = build.build(model, classes=10, channels=3, size=(side, side), norm=norm, dtype=dtype)
    x = torch.randn(8, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(0))
    y = torch.eye(10, dtype=dtype)[torch.arange(8)]
    trained = {key: tensor for key, tensor in network.named_parameters() if tensor.requires_grad}
    return scale_invariance.check(lambda: (network(x) - y).square().sum(1).mean() / 2, trained)
