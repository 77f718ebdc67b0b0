"""`optim-family models`: the list, one card in full, and the proof that a model is scale-invariant."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Final, cast, get_args

import rich_click as click

from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import Output, flat
from optim_family.errors import UsageError, unknown
from optim_family.networks import cards

if TYPE_CHECKING:
    from optim_family.networks.cards import Norm
    from optim_family.networks.scale_invariance import ScaleInvariance

_PRECISIONS: Final = ("float32", "float64")


@listing("models")
def command(output: Output) -> None:
    """List the model cards; `timm:NAME` takes any backbone of timm, and PATH.toml a card of your own."""
    summaries = cards.summaries()
    if output.json:
        return output.data([{"name": name, "summary": text} for name, text in summaries.items()])
    output.table(["model", "summary"], [[name, text] for name, text in summaries.items()])
    output.say("\nAlso timm:NAME for any backbone of timm, and PATH.toml for a card of your own.")


@command.named("show")
def show(output: Output, name: str) -> None:
    """Show one card in full: where the network comes from, and what is changed in it."""
    card = asdict(cards.load(name))
    if output.json:
        return output.data(card)
    output.table(["", name], [pair for pair in flat(card) if pair[0] != "name"])


@command.named("check")
@click.option("--norm", default="frozen-affine", show_default=True, help="frozen-affine, affine or none")
@click.option("--size", type=click.IntRange(1), help="Side of the images in pixels (default 16, timm: 32).")
def check(output: Output, name: str, norm: str, size: int | None) -> int:
    """Prove or refute that a model is exactly scale-invariant; exit 1 if its card promised otherwise.

    The loss must be equal, and the gradient half, when all trained weights are doubled.
    """
    card = cards.load(name)
    promised = card.expect.invariant if norm == "frozen-affine" else None
    side = size or (32 if name.startswith("timm:") else 16)
    known = _norm(norm)
    verdicts = {precision: _verdict(name, known, side, precision) for precision in _PRECISIONS}
    kept = promised is None or all(verdict.exact for verdict in verdicts.values())
    if output.json:
        facts = {precision: asdict(verdict) for precision, verdict in verdicts.items()}
        output.data({"model": name, "norm": norm, "promised": promised, "kept": kept, "verdicts": facts})
    else:
        output.table(["precision", "verdict"], [[key, verdict.summary] for key, verdict in verdicts.items()])
        output.say(_promise(name, promised, kept))
    return 0 if kept else 1


def _promise(name: str, promised: str | None, kept: bool) -> str:
    if promised is None:
        return f"The card of {name} promises nothing about this."
    return f"The card of {name} promises {promised} invariance, and {'keeps it' if kept else 'breaks it'}."


def _verdict(model: str, norm: "Norm", side: int, precision: str) -> "ScaleInvariance":
    """Half the squared error on eight random images of ten classes, doubled weights against plain ones."""
    import torch

    from optim_family.networks import build, scale_invariance

    dtype = getattr(torch, precision)
    network = build.build(model, classes=10, channels=3, size=(side, side), norm=norm, dtype=dtype)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, side, side, dtype=dtype, generator=random)
    y = torch.eye(10, dtype=dtype)[torch.arange(8)]
    named = {key: tensor for key, tensor in network.named_parameters() if tensor.requires_grad}
    return scale_invariance.check(lambda: (network(x) - y).square().sum(1).mean() / 2, named)


def _norm(text: str) -> "Norm":
    from optim_family.networks.cards import Norm

    if text not in get_args(Norm):
        raise UsageError(unknown("norm", text, get_args(Norm)))
    return cast(Norm, text)
