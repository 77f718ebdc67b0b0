"""`optim-family models`: list the cards, show one in full, or check that a model is scale-invariant."""

from dataclasses import asdict
from typing import TYPE_CHECKING, get_args

import rich_click as click

from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import Output, flat
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


@command.subcommand("check")
@click.option(
    "--norm",
    type=click.Choice(get_args(cards.Norm)),
    default="frozen-affine",
    show_default=True,
    help="Normalisation layers: γ and β frozen, trained, or no layers.",
)
@click.option("--size", type=click.IntRange(1), help="Side of the images in pixels (default 16, timm: 32).")
def check(output: Output, name: str, norm: cards.Norm, size: int | None) -> int:
    """Check whether a model is exactly scale-invariant; exit 1 if its card requires it and it is not.

    If all trained weights are doubled, the loss must stay equal and the gradient must halve.
    """
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
