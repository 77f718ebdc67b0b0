"""A run is its specification: what is trained, how, and what is measured, with a key that names it."""

import hashlib
import json
from typing import Annotated, Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Norm = Literal["frozen-affine", "affine", "none"]
Loss = Literal["mse", "cross-entropy"]
ViewName = Literal["raw", "spherical", "riemannian", "preconditioned", "spherical-preconditioned"]
Hvp = Literal["auto", "retained", "rebuilt"]
# Of the images in memory; it changes sums by rounding, and so is no part of what a run is.
MemoryFormat = Literal["channels-last", "contiguous"]

# What is measured beside a view, under the view's name and one of these.
MIDPOINT, BATCH = "-midpoint", "-batch"


@final
class RunSpec(BaseModel):
    """Everything that decides what a run computes; two runs with one `key` are the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    optimizer: Annotated[str, Field(description="registered name of the optimizer")]
    hyper: Annotated[dict[str, JsonValue], Field(description="all its hyper-parameters")]
    model: Annotated[str, Field(description="a model card, or timm:NAME")] = "bn_cnn"
    norm: Annotated[
        Norm, Field(description="normalisation layers: γ and β frozen, trained, or no layers")
    ] = "frozen-affine"
    data: Annotated[str, Field(description="a data set, npz:PATH or folder:PATH")] = "digits"
    limit: Annotated[
        int | None, Field(ge=1, description="training images, a class-balanced subset; all if not given")
    ] = None
    loss: Annotated[Loss, Field(description="½‖f − y‖² on one-hot labels, or cross-entropy")] = "mse"
    batch_size: Annotated[int | None, Field(ge=2, description="mini-batch size; full batch if not given")] = (
        None
    )
    ghost_batch: Annotated[
        int | None,
        Field(
            ge=2,
            description="examples that share normalisation statistics; divides training set and mini-batch",
        ),
    ] = None
    steps: Annotated[int, Field(ge=1, description="optimizer steps")] = 100
    # A run without one is the same run, under the same key, as before there were schedules.
    schedule: Annotated[
        str | None,
        Field(
            exclude_if=lambda text: text is None,
            description="factors of the learning rate, joined by +: warmup:steps=50+cosine:to=0.1",
        ),
    ] = None
    every: Annotated[int, Field(ge=1, description="steps between two records")] = 20
    views: Annotated[
        tuple[ViewName, ...] | None,
        Field(description="sharpnesses; chosen to fit if not given"),
    ] = None
    rtol: Annotated[float, Field(gt=0, lt=1, description="relative error at which a reading stops")] = 1e-3
    midpoint: Annotated[
        bool, Field(description="also measure at the midpoint of three successive weights")
    ] = False
    batch_sharpness: Annotated[
        int | None, Field(ge=1, description="also measure so many mini-batches along their own gradients")
    ] = None
    hvp: Annotated[
        Hvp, Field(description="keep the gradient's graph between Hessian products, or rebuild it")
    ] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32, description="seed of weights, subset and mini-batches")] = 0
    device: Annotated[str, Field(description="cpu, cuda or cuda:N")] = "cpu"
    precision: Annotated[Literal["float32", "float64"], Field(description="of weights and arithmetic")] = (
        "float32"
    )

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this specification."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """A short readable name, safe as a file name: optimizer, model, data and key."""
        words = f"{self.optimizer}-{self.model}-{self.data.partition(':')[0]}"
        return f"{file_name(words)}-{self.key}"


def file_name(words: str) -> str:
    """What is left of some words as the name of a file in any folder: at most 80 letters of it, or `-`.

    >>> file_name("../my model")
    'my-model'
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in words)
    return plain.lstrip("-.")[:80] or "-"


def parted(view: str) -> tuple[str, str]:
    """A view, and what is measured beside it: spherical-midpoint → spherical, -midpoint; or nothing."""
    beside = next((suffix for suffix in (MIDPOINT, BATCH) if view.endswith(suffix)), "")
    return view.removesuffix(beside), beside


def without_scale(view: str) -> str:
    """The view that differs from this one by the factor ρ² alone: spherical → raw; others are themselves."""
    base, beside = parted(view)
    return ("raw" if base == "spherical" else base.removeprefix("spherical-")) + beside


def difference(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each field in which two specifications differ: `hyper.lr: 0.1, not 0.2`."""
    lines = []
    for field in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(field), theirs.get(field)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += difference(a, b, f"{prefix}{field}.")
        elif a != b:
            lines.append(f"{prefix}{field}: {json.dumps(a)}, not {json.dumps(b)}")
    return lines
