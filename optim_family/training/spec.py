"""The specification of a run: all parameters that determine its result, and the key that identifies it."""

import hashlib
import json
import re
from typing import Annotated, Literal, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from optim_family.networks.cards import Norm
from optim_family.sharpness.views import ViewName

Loss = Literal["mse", "cross-entropy"]
Hvp = Literal["auto", "retained", "rebuilt"]
Precision = Literal["float32", "float64", "tf32"]
Reading = Literal["lanczos", "sampled", "auto"]
Point = Literal["x", "y"]
# Layout of the images; not in the specification, since it changes sums by rounding only.
MemoryFormat = Literal["channels-last", "contiguous"]


def default_device() -> str:
    """The GPU if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@final
class RunSpec(BaseModel):
    """All parameters that determine the result of a run; two runs with the same `key` are the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    optimizer: Annotated[
        str,
        Field(description="a registered optimizer, torch:NAME, timm:NAME, kozistr:NAME or schedulefree:NAME"),
    ]
    hyper: Annotated[dict[str, JsonValue], Field(description="all its hyper-parameters")]
    model: Annotated[str, Field(description="a model card, or timm:NAME")] = "bn_cnn"
    norm: Annotated[
        Norm, Field(description="normalisation layers: γ and β frozen, trained, or no layers")
    ] = "frozen-affine"
    data: Annotated[str, Field(description="a data set, npz:PATH or folder:PATH")] = "digits"
    limit: Annotated[int | None, Field(ge=1, description="training images, class-balanced; default all")] = (
        None
    )
    loss: Annotated[Loss, Field(description="½‖f − y‖² on one-hot labels, or cross-entropy")] = "mse"
    batch_size: Annotated[int | None, Field(ge=2, description="mini-batch size; default full batch")] = None
    ghost_batch: Annotated[
        int | None,
        Field(
            ge=2, description="examples that share normalisation statistics; must divide set and mini-batch"
        ),
    ] = None
    steps: Annotated[int, Field(ge=1, description="optimizer steps")] = 100
    # Left out if it is None, so that the keys of runs without a schedule do not change.
    schedule: Annotated[
        str | None,
        Field(
            exclude_if=lambda text: text is None,
            description="factors of the learning rate, joined by +: warmup:steps=50+cosine:to=0.1",
        ),
    ] = None
    every: Annotated[int, Field(ge=1, description="steps between two records")] = 20
    views: Annotated[
        tuple[ViewName, ...] | None, Field(description="views to measure; default all that apply")
    ] = None
    rtol: Annotated[float, Field(gt=0, lt=1, description="relative error of a measurement")] = 1e-3
    # Left out if it is lanczos, so that the keys of earlier runs do not change.
    reading: Annotated[
        Reading,
        Field(
            exclude_if=lambda reading: reading == "lanczos",
            description="Lanczos over all data, or on a sample of the ghost batches and corrected",
        ),
    ] = "lanczos"
    midpoint: Annotated[bool, Field(description="also measure at the midpoint of three weights")] = False
    batch_sharpness: Annotated[
        int | None, Field(ge=1, description="number of mini-batches to measure along their own gradients")
    ] = None
    # Left out if it is x, so that the keys of earlier runs do not change.
    point: Annotated[
        Point,
        Field(
            exclude_if=lambda point: point == "x",
            description="where a schedule-free optimizer is measured: x, the average, or y, of its gradients",
        ),
    ] = "x"
    along: Annotated[
        bool,
        Field(
            exclude_if=lambda flag: not flag,
            description="measure curvature, smoothness and critical sharpness along the last update",
        ),
    ] = False
    budget: Annotated[
        int | None,
        Field(
            ge=2,
            exclude_if=lambda number: number is None,
            description="Hessian-vector products of the generalised view; default 100",
        ),
    ] = None
    hvp: Annotated[
        Hvp, Field(description="keep the gradient's graph between Hessian-vector products, or rebuild it")
    ] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32, description="seed of weights, subset and mini-batches")] = 0
    device: Annotated[str, Field(description="cpu, cuda or cuda:N")] = "cpu"
    precision: Annotated[
        Precision, Field(description="of all numbers; tf32: float32, and the gradients of steps in TF32")
    ] = "float32"

    @property
    def notice(self) -> str | None:
        """One line about settings that are valid and hardly meant."""
        if self.every <= self.steps:
            return None
        return (
            f"every {self.every} is beyond the {self.steps} steps: only the first and the last are measured"
        )

    @property
    def records(self) -> int:
        """The number of records: of step 0, of every `every` steps, and of the last step."""
        return 1 + -(-self.steps // self.every)

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that identify this specification."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """A short readable name, safe as a file name: optimizer, model, data and key."""
        words = f"{self.optimizer}-{self.model}-{self.data.partition(':')[0]}"
        return f"{slug(words)}-{self.key}"


def slug(text: str) -> str:
    """A file name made of a text: at most 80 characters, or `-` if none remains.

    >>> slug("../my model")
    'my-model'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip("-.")[:80] or "-"
