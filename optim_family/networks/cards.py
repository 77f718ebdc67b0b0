"""Model cards: a backbone and the changes that make its loss scale-invariant, as data.

A card is a dataclass, so that listing all of them costs nothing; pydantic is imported when one is read.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, final

from optim_family import registry
from optim_family.errors import UsageError, invalid_field, unknown
from optim_family.resources import defined_names, folder, read_toml, toml_names


@final
@dataclass(frozen=True)
class Adapt:
    """Changes to the network, in this order; normalisation is an option of the run."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    stem: Literal["conv3x3"] | None = None  # first convolution → 3×3/1, the only max-pool → identity
    pool: Literal["ceil"] | None = None  # max-pools round up, so that one pixel stays one pixel
    head: Literal["average"] | None = None  # after the features: mean over the image, one linear layer
    freeze: tuple[str, ...] | None = None  # parameters frozen at random values; default: the classifier
    readout_norm: float = 1.0  # Frobenius norm of each of them


@final
@dataclass(frozen=True)
class Expect:
    """The result that `optim-family models check` requires under frozen-affine normalisation."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    invariant: Literal["bitwise"] | None = None  # default: no requirement


@final
@dataclass(frozen=True)
class Card:
    """One backbone: its source, its changes, and the expected scale invariance."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str  # by default that of the file
    summary: str  # one line
    timm: str | None = None  # a timm architecture, or
    builtin: Literal["bn_cnn", "bn_mlp", "resnet20", "vgg11"] | None = None  # a network of this package, or
    plugin: str | None = None  # a network of another distribution
    kwargs: dict[str, Any] = field(default_factory=dict)  # arguments of its constructor
    adapt: Adapt = Adapt()
    expect: Expect = Expect()


def names() -> list[str]:
    """The names of the packaged cards, sorted."""
    return toml_names("models")


def summaries() -> dict[str, str]:
    """Name → one line, for every packaged card and every plugin, without validation or import."""
    tables = {name: read_toml(folder("models") / f"{name}.toml", "model card")[0] for name in names()}
    cards = {name: str(table.get("summary", "")) for name, table in tables.items()}
    return {name: f"of {entry.source}" for name, entry in registered_models().items()} | cards


def registered_models() -> dict[str, registry.PluginEntry]:
    """The models of other distributions; the names of packaged cards are reserved."""
    return {name: entry for name, entry in registry.entries(registry.MODELS).items() if name not in names()}


def load(model: str) -> Card:
    """The card of a packaged model, of a file (`…/mine.toml`), or of any timm backbone (`timm:NAME`).

    Raises:
        UsageError: there is no such card, or it is invalid: every mistake, each with its place.
    """
    if model.startswith("timm:"):
        return Card(name=model, summary="adapted in the generic way", timm=model.removeprefix("timm:"))
    if model.endswith(".toml"):
        return _read(Path(model))
    if model in (plugins := registered_models()):
        return Card(name=model, summary=f"of {plugins[model].source}", plugin=model)
    if model not in names():
        known = [*names(), *plugins, "timm:NAME", "PATH.toml"]
        in_timm = model in defined_names("timm", "models/*.py", r"^def (\w+)\(")
        raise UsageError(unknown("model", model, known, near=f"timm:{model}" if in_timm else None))
    return _read(folder("models") / f"{model}.toml")


def _read(path: Path) -> Card:
    from pydantic import TypeAdapter, ValidationError

    table, _ = read_toml(path, "model card")
    mistakes = list(_broken_rules(table))
    try:
        card = TypeAdapter(Card).validate_python({"name": path.stem, **table})
    except ValidationError as error:
        mistakes += map(_mistake, error.errors())
    if mistakes:
        raise UsageError(f"{path}: {'; '.join(mistakes)}")
    return card


def _broken_rules(table: dict[str, Any]) -> Iterator[str]:
    """Rules that types cannot express, on the raw table, so that one message reports all mistakes."""
    if len({"timm", "builtin", "plugin"} & table.keys()) != 1:
        yield "a card has exactly one of timm, builtin and plugin"
    adapt = table.get("adapt")
    norm = adapt.get("readout_norm") if isinstance(adapt, dict) else None
    if isinstance(norm, int | float) and not 0 < norm < math.inf:
        yield f"adapt.readout_norm: it must be positive and finite, not {norm}"


def _mistake(detail: Any) -> str:
    """One mistake: `adapt.readout_norm: it must be a valid number, not one`."""
    *table, key = map(str, detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        owner = {"adapt": Adapt, "expect": Expect}[table[0]] if table else Card
        known = [each.name for each in fields(owner)]
        return ".".join(table) + ": " * bool(table) + unknown("field", key, known)
    return invalid_field(detail, ".".join([*table, key]))


Norm = Literal["frozen-affine", "affine", "none"]
