"""A distribution `wild-plugin` 1.5 that registers the optimizer `wild`: good, until a test breaks it."""

import os
import sys

import pytest

from optim_family import registry

GOOD = """
import os, sys, time, torch
from typing import final
from optim_family.geometry import Decay, DiagonalMetric, Geometry, ScalarMetric, momentum_threshold
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


@pytest.fixture(name="plugin")
def plugin_fixture(tmp_path, monkeypatch):
    """Install a distribution `wild-plugin` that registers `wild`, for this process and those it starts."""

    def put(source):
        info = tmp_path / "wild_plugin-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wild-plugin\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nwild = wild_plugin:Plain\n")
        (tmp_path / "wild_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    yield put
    sys.modules.pop("wild_plugin", None)


def broken(source, old, new):
    assert old in source
    return source.replace(old, new, 1)
