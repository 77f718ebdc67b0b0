"""Plugins and scripts that use former names keep working (docs/aliases.md)."""

from dataclasses import replace

import pytest
import torch

import optim_family
from optim_family import registry
from optim_family.conformance.harness import OptimizerHarness
from optim_family.optimizers import base, motion
from optim_family.optimizers.rmsprop import RMSprop


def test_the_former_names_of_classes_are_the_classes():
    assert optim_family.Member is base.Member is optim_family.OptimizerBase
    assert motion.Motion is motion.MomentumUpdate
    assert registry.Entry is registry.PluginEntry


def test_a_plugin_that_uses_foresee_gets_the_entry_of_the_next_step():
    w = torch.ones(3, requires_grad=True)
    w.grad = torch.ones(3)
    optimizer = RMSprop([w])
    entry = optimizer.foresee(optimizer._second_moment)
    assert torch.equal(entry, optimizer.next_step_entry(optimizer._second_moment))


@pytest.mark.parametrize("name", ["tried_on", "test_shapes"])
def test_shapes_are_read_and_defined_under_both_names(name):
    matrices = type("Matrices", (base.FamilyOptimizer,), {name: ((2, 2), (3, 1)), "update": None})
    child = type("Child", (matrices,), {})
    for optimizer in (matrices, child):
        assert optimizer.tried_on == optimizer.test_shapes == ((2, 2), (3, 1))
    assert base.OptimizerBase.tried_on == base.OptimizerBase.test_shapes == ((4, 3), (5,))


def test_the_conformance_suite_uses_shapes_under_the_former_name():
    optimizer = type("Matrices", (RMSprop,), {"tried_on": ((2, 2),)})
    assert OptimizerHarness.build(optimizer, {}).space.dim == 4


def test_the_weights_of_a_momentum_update_have_two_names():
    old = motion.Motion(1.0, 0.1, 0.9, fresh=0.0, remembered=0.5)
    new = motion.MomentumUpdate(1.0, 0.1, 0.9, 0.0, 0.5)
    assert (old, old.threshold()) == (new, new.threshold())
    for update in (old, new, replace(new, beta=0.5)):
        assert (update.gradient_weight, update.momentum_weight) == (0.0, 0.5)
        assert (update.fresh, update.remembered) == (0.0, 0.5)
