"""Source of the distribution `test-plugin` 1.5, whose optimizer `plain` is correct until a test breaks it."""

GOOD = """
import os, sys, time, torch
from typing import final
from optim_family.geometry import Decay, DiagonalMetric, Geometry, ScalarMetric, momentum_threshold
from optim_family.norms import MaxNorm, Norm
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters

class Hyper(HyperParameters):
    lr: float = 0.1

@final
class Plain(FamilyOptimizer):
    Hyper = Hyper
    def update(self, w, grad, state, h):
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(grad, alpha=h["lr"])
    def geometry(self):
        decay = Decay(self.values["lr"] * self.values["weight_decay"])
        threshold = momentum_threshold(self.values["lr"], shrink=decay.shrink)
        return Geometry(ScalarMetric(self.dim), threshold, decay)
"""

# Lines of it, for a test to replace.
UPDATE = 'w.mul_(1 - h["lr"]'
GEOMETRY = "        decay = Decay(self"
HYPER = "Hyper = Hyper\n"
SCALAR = "ScalarMetric(self.dim)"


def broken(source, old, new):
    assert old in source
    return source.replace(old, new, 1)
