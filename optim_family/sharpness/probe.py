"""Sharpness in each of the views, a number with its evidence.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, final, get_args

import torch
from torch import Tensor

from optim_family.curvature.lanczos import Eigenpairs, top_eigenpairs
from optim_family.curvature.sampled_lanczos import can_sample, sampled_top_eigenpairs
from optim_family.geometry import DiagonalMetric, Geometry
from optim_family.operators import CongruenceOperator, SymmetricOperator, TangentProjection
from optim_family.sharpness.self_check import explain_products
from optim_family.sharpness.views import View, view_by_name
from optim_family.space import norm

# Norm of the noise, that of the gradient being 1: at the edge the gradient may lack the first eigenvector.
NOISE = 10.0

Method = Literal["lanczos", "sampled"]
ReadingMethod = Literal["lanczos", "sampled", "auto"]
METHODS: Final = get_args(ReadingMethod)
# Every so many sampled readings one is also taken by Lanczos, and compared.
AUDIT_EVERY: Final = 10


@final
@dataclass(frozen=True)
class Reading:
    """One sharpness, with the evidence for it.

    Attributes:
        value: λ₁, in units of loss / weight² (raw), loss (spherical, riemannian), 1 / learning rate
            (preconditioned) or weight² / learning rate (spherical-preconditioned); or a lower bound of S_N
            (generalized; `sharpness.generalized_probe` says which fields differ).
        threshold: the stability threshold of the same view, or None where it has none.
        ratio: value / threshold, 1 at the edge of stability; None without a threshold, or where it is zero.
        residual: ‖A v − λ v‖ for the eigenvector found.
        error: bound of |λ₁ − value|, if the search missed no eigenvalue near the top; it ends the search.
        bound: of λ₁ − value for any spectrum, with a failure probability of 1 in 1,000; None for a sampled
            reading, unless it was audited.
        products: number of Hessian-vector products over all chunks.
        seconds: wall time that it took.
        converged: `error` is below rtol times the value, within the allowed products.
        top: the k largest eigenvalues, multiples counted, largest first.
        check: what the check of the loss said, where this reading made one.
        note: what the value is if it is no eigenvalue, such as "lower bound", and why there is no threshold.
        spread: of the values at which the starts of a lower bound ended.
        floor: λ₁ / N(v₁)², below which S_N cannot be.
        dual: N*(g), by which the sharpness of a normalised step is divided.
        method: the search that gave the value.
        sample_products: number of products over the sample of the chunks.
        sample_share: of the examples that are in the sample.
        audit: |difference| to Lanczos over the value, where a sampled reading was also taken by Lanczos, the
            largest of the k; the values are then the larger ones, since none is above its eigenvalue.
        point: x or y, where a schedule-free optimizer was measured.
        rounding: relative change of the value, to first order, by the rounding of the gradient behind the
            metric (`sharpness.metric_rounding`); None if there is no diagonal metric in this view.
    """

    value: float
    threshold: float | None
    ratio: float | None
    residual: float
    error: float
    bound: float | None
    products: int
    seconds: float
    converged: bool = True
    top: tuple[float, ...] = ()
    check: str = ""
    note: str = ""
    spread: float | None = None
    floor: float | None = None
    dual: float | None = None
    method: Method = "lanczos"
    sample_products: int = 0
    sample_share: float = 0.0
    audit: float | None = None
    point: str = ""
    rounding: float | None = None

    def as_record(self) -> dict[str, Any]:
        """As JSON; `top` only where it says more than `value`, other optional fields where they are set.

        `method` and the sample are left out of a reading without a sample.
        """
        record = asdict(self)
        if len(self.top) < 2:
            del record["top"]
        if not self.sample_products:
            del record["method"], record["sample_products"], record["sample_share"]
        optional = ("check", "point", "note", "spread", "floor", "dual", "audit", "rounding")
        unset = [name for name in optional if record[name] in ("", None)]
        return {name: value for name, value in record.items() if name not in unset}


def view_operator(
    view: View,
    hessian: SymmetricOperator,
    weights: Tensor,
    geometry: Geometry | None,
    length: float | None = None,
) -> CongruenceOperator:
    """P^{-1/2} (Π) H (Π) P^{-1/2}, the factor ρ² left out; `length` is ρ, if it is known.

    Raises:
        ValueError: the view needs a metric and there is none, or it is not an eigenvalue of an operator.
    """
    if view.generalized:
        raise ValueError(f"the view {view.name!r} is a maximum over a norm, not an eigenvalue.")
    factors: list[SymmetricOperator] = []
    if view.preconditioned:
        if geometry is None:
            raise ValueError(f"the view {view.name!r} needs an optimizer with a known metric.")
        factors.append(geometry.metric.power(-0.5))
    if view.tangent:
        factors.append(TangentProjection(weights, length))
    return CongruenceOperator(tuple(factors), hessian)


def view_threshold(view: View, geometry: Geometry | None) -> float | None:
    """The stability threshold of the unscaled operator; None where this view has none."""
    if geometry is None:
        return None
    if view.preconditioned:
        return geometry.threshold
    return None if geometry.metric.scale is None else geometry.threshold * geometry.metric.scale


def view_reading(
    view: View, pairs: Eigenpairs, length: float, geometry: Geometry | None, seconds: float
) -> Reading:
    """The number and its evidence, out of the eigenpairs of `view_operator`; `length` is ρ."""
    scale = length**2 if view.spherical else 1.0
    threshold = view_threshold(view, geometry)
    return Reading(
        value=scale * pairs.values[0],
        threshold=None if threshold is None else scale * threshold,
        ratio=pairs.values[0] / threshold if threshold else None,
        residual=scale * pairs.residuals[0],
        error=scale * pairs.errors[0],
        bound=scale * pairs.bound if math.isfinite(pairs.bound) else None,
        products=pairs.products,
        seconds=seconds,
        converged=pairs.converged,
        top=tuple(scale * value for value in pairs.values),
        method=pairs.method,
        sample_products=pairs.sample_products,
        sample_share=pairs.sample_share,
        audit=pairs.audit,
        rounding=_rounding(view, pairs.vectors[0], geometry),
    )


def _rounding(view: View, vector: Tensor, geometry: Geometry | None) -> float | None:
    """Σ u² |δp/p|, for the unit eigenvector u [d]."""
    metric = geometry.metric if geometry and view.preconditioned else None
    if not isinstance(metric, DiagonalMetric) or metric.rounding is None:
        return None
    return float((vector.square() * metric.rounding).sum())


@final
class Probe:
    """Measures views of one kind again and again; remembers how often, for the noise of the next reading.

    A reading starts at the gradient, most of which lies in the space of the largest eigenvalues (G. Gur-Ari,
    D. Roberts, E. Dyer, arXiv:1812.04754), and noise. The last eigenvectors are no better start: a cluster
    turns in between, and what they lack of it is missed.

    Args:
        view: which sharpness.
        k: how many of the largest eigenvalues.
        rtol: relative error at which a reading stops.
        max_products: Hessian-vector products after which the search stops without convergence.
        seed: of the noise that is mixed into the start, and of the sample; readings are deterministic.
        reading: `lanczos`, or `sampled`: Lanczos on a sample of the chunks, corrected by few products over
            all of them, from 8 chunks on; by Lanczos if it does not converge. `auto`: from 16 chunks on.

    Raises:
        ValueError: no view, or no way to take a reading, has this name.
    """

    def __init__(
        self,
        view: View | str = "spherical",
        *,
        k: int = 1,
        rtol: float = 1e-3,
        max_products: int = 200,
        seed: int = 0,
        reading: ReadingMethod = "lanczos",
    ) -> None:
        if reading not in METHODS:
            raise ValueError(f"there is no reading {reading!r}; known: {', '.join(METHODS)}.")
        self.view, self.reading = view_by_name(view), reading
        self.k, self.rtol, self.max_products, self.seed = k, rtol, max_products, seed
        self.count = 0

    def __call__(
        self, hessian: SymmetricOperator, weights: Tensor, geometry: Geometry | None = None
    ) -> Reading:
        """One reading at the weights w [d]; a view without metric needs no geometry."""
        return self.readings([self.view], hessian, weights, geometry, float(norm(weights)))[self.view.name]

    def readings(
        self,
        views: Iterable[View],
        hessian: SymmetricOperator,
        weights: Tensor,
        geometry: Geometry | None,
        length: float,
    ) -> dict[str, Reading]:
        """The reading of each view of this probe's kind, by name; they share products. `length` is ρ."""
        begin = time.perf_counter()
        pairs = self.eigenpairs(hessian, weights, geometry, length)
        seconds = time.perf_counter() - begin
        return {view.name: view_reading(view, pairs, length, geometry, seconds) for view in views}

    def eigenpairs(
        self,
        hessian: SymmetricOperator,
        weights: Tensor,
        geometry: Geometry | None,
        length: float | None = None,
    ) -> Eigenpairs:
        """The eigenpairs behind a reading, not scaled by ρ²; `length` is ρ, if it is known."""
        operator = view_operator(self.view, hessian, weights, geometry, length)
        seed = self.seed * 1_000_003 + self.count
        self.count += 1
        paying = self.reading == "auto"
        if self.reading == "lanczos" or not can_sample(operator, self.k, self.rtol, paying=paying):
            return self._lanczos(operator, weights, seed)
        with explain_products():
            sampled = sampled_top_eigenpairs(operator, weights, self.k, rtol=self.rtol, seed=seed)
        if sampled.converged and self.count % AUDIT_EVERY:
            return sampled
        return _audited(sampled, self._lanczos(operator, weights, seed), self.rtol)

    def _lanczos(self, operator: SymmetricOperator, weights: Tensor, seed: int) -> Eigenpairs:
        start, noise = eigen_start(operator, weights, torch.Generator(weights.device).manual_seed(seed))
        options: dict[str, Any] = {"rtol": self.rtol, "max_products": self.max_products, "noise": noise}
        with explain_products():
            return top_eigenpairs(operator, start, k=min(self.k, operator.dim), **options)

    def state_dict(self) -> dict[str, Any]:
        """What the next reading depends on."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.count = state["count"]


def _audited(sampled: Eigenpairs, lanczos: Eigenpairs, rtol: float) -> Eigenpairs:
    """The pairs with the larger values, and the evidence of both; Lanczos, if the sample did not converge.

    They count as converged only if the two agree to rtol.
    """
    best, audit = lanczos, None
    if sampled.converged:
        best = max(lanczos, sampled, key=lambda pairs: sum(pairs.values))
        both = zip(sampled.values, lanczos.values, best.values, strict=True)
        audit = max(abs(one - other) / (abs(value) or 1.0) for one, other, value in both)
    return replace(
        best,
        bound=max(0.0, lanczos.bound + lanczos.values[0] - best.values[0]),
        products=sampled.products + lanczos.products,
        converged=lanczos.converged and (audit is None or audit <= rtol),
        sample_products=sampled.sample_products,
        sample_share=sampled.sample_share,
        audit=audit,
    )


def eigen_start(
    operator: SymmetricOperator, weights: Tensor, generator: torch.Generator
) -> tuple[Tensor, float]:
    """The start vector [d] of a search, and the norm of its random part as a share of the whole.

    Raises:
        FloatingPointError: the gradient is not finite.
    """
    noise = torch.randn(weights.shape, generator=generator, dtype=weights.dtype, device=weights.device)
    gradient = operator.gradient()
    if gradient is None:
        return noise, 1.0
    size = norm(gradient)
    start = gradient / size + noise * (NOISE / norm(noise))
    gradient_norm, start_norm = torch.stack([size, norm(start)]).tolist()  # one synchronisation
    if not math.isfinite(gradient_norm):
        raise FloatingPointError("the gradient is not finite: there is no sharpness here.")
    return (start, min(1.0, NOISE / start_norm)) if gradient_norm else (noise, 1.0)
