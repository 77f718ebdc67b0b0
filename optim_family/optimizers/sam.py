"""Sharpness-aware minimisation around another optimizer: its gradient is that of a point uphill.

    e = r g(w) / ‖g(w)‖₂
    w ← the step of the inner optimizer from w, with the gradient g(w + e)

A step takes two gradients, so that it needs a closure. The edge depends on the gradient: on ½ h w² the orbit
of period 2 with |g| = h|w| has h (1 + r h/|g|) = T, hence

    h = |g|/(2r) · (√(1 + 4 r T/|g|) − 1),

where T is the curvature of such an orbit of the inner optimizer: 2/η for gradient descent, (2 − ηλ)/η with
decay. A larger gradient or a smaller r moves the edge up to T. No edge is known with momentum, which ends in
orbits of other periods, and in the metric of an adaptive inner optimizer.

Source: P. Foret et al., "Sharpness-aware minimization for efficiently improving generalization" (2021); edge:
P. Long, P. Bartlett, "Sharpness-aware minimization and the edge of stability" (2024), without decay.
"""

import math
from abc import ABC
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, cast, final

import torch
from pydantic import Field, create_model

from optim_family.geometry import Geometry, ScalarMetric, UnknownMetric, sam_edge
from optim_family.optimizers.base import FamilyOptimizer, OptimizerBase


class SAM(OptimizerBase, ABC):
    """SAM around an inner optimizer of this family."""

    default_inner: ClassVar[str] = "gd"
    inner_class: ClassVar[type[FamilyOptimizer]]
    needs_closure = True

    @classmethod
    def around(cls, inner: type[FamilyOptimizer]) -> type[OptimizerBase]:
        """SAM around an optimizer, with its hyper-parameters and `radius`."""
        radius = Annotated[float, Field(gt=0, description="length r of the step uphill", examples=[0.2])]

        @final
        class Around(cls):  # type: ignore[valid-type, misc]
            inner_class = inner
            Hyper = create_model("SAMHyper", __base__=inner.Hyper, radius=(radius, 0.05))
            freeze, test_shapes, batch_size = inner.freeze, inner.test_shapes, inner.batch_size

        return cast(type[OptimizerBase], Around)

    def __init__(self, *arguments: Any, **values: Any) -> None:
        super().__init__(*arguments, **values)
        self.inner = self.inner_class(self.param_groups[0]["params"], **self._inner_values())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; the closure computes the gradients at the present weights and returns the loss.

        Raises:
            ValueError: there is no closure.
        """
        if closure is None:
            raise ValueError(
                "sam evaluates the gradient twice a step: call step(closure) with a function that calls "
                "zero_grad() and loss.backward(), and returns the loss."
            )
        with torch.enable_grad():
            loss = closure()
        moving = [w for w in self.weights if w.grad is not None]
        length = float(torch.nn.utils.get_total_norm([w.grad for w in moving if w.grad is not None]))
        before = [w.detach().clone() for w in moving]
        if length:
            for w in moving:
                w.add_(cast(torch.Tensor, w.grad), alpha=self.values["radius"] / length)
            with torch.enable_grad():
                closure()
        for w, old in zip(moving, before, strict=True):
            w.copy_(old)
        self._synchronised().step()
        return loss

    def geometry(self) -> Geometry:
        """P = c I, and the edge at the present gradient."""
        inner = self._synchronised().geometry()
        name, scale = self.inner_class.__name__, inner.metric.scale
        if inner.norm is not None or scale is None:
            reason = f"sam moves uphill in the Euclidean norm, and {name} down in another one"
            return Geometry(UnknownMetric(self.dim, reason), math.inf, inner.decay)
        if self.values.get("momentum"):
            reason = "the edge of sam with momentum is not known"
            return Geometry(UnknownMetric(self.dim, reason), math.inf, inner.decay)
        gradients = [w.grad for w in self.weights if w.grad is not None]
        length = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        edge = sam_edge(_orbit_threshold(inner, self.values["lr"]) * scale, length, self.values["radius"])
        return Geometry(ScalarMetric(self.dim), edge, inner.decay, orbit=True)

    def _inner_values(self) -> dict[str, Any]:
        return {name: self.values[name] for name in self.inner_class.Hyper.model_fields}

    def _synchronised(self) -> FamilyOptimizer:
        """The inner optimizer, with the state and the hyper-parameters of this one."""
        self.inner.state = self.state
        self.inner.param_groups[0].update(self._inner_values())
        return self.inner


def _orbit_threshold(geometry: Geometry, lr: float) -> float:
    """The curvature of an orbit of period 2: a threshold relative to the shrinking weights is lower."""
    return geometry.threshold + (geometry.decay.shrink / lr if geometry.decay else 0.0)
