"""Checks of behaviour: schedules, calls of geometry(), checkpoints, determinism and parameter groups.

Each check returns its result in a few words, or raises an AssertionError.
"""

import tempfile
from pathlib import Path
from typing import cast

import torch

from optim_family.conformance.harness import LR, OptimizerHarness, gradients, variants, with_decay
from optim_family.errors import one_line
from optim_family.optimizers.base import FamilyOptimizer, OptimizerBase
from optim_family.training import checkpoint


def check_geometry_follows_a_schedule(optimizer: type[OptimizerBase]) -> str:
    """geometry() reads the hyper-parameters in force, which schedulers change, not `defaults`."""
    for values in with_decay(optimizer):
        harness = OptimizerHarness.build(optimizer, values).warm_up(20)
        changes = {"lr": values["lr"] / 2, "weight_decay": values["weight_decay"] * 1.5}
        expected = harness.copy(**changes).geometry()
        harness.set(**changes)
        got = harness.geometry()
        assert got.threshold == expected.threshold and got.decay == expected.decay, (
            f"{optimizer.__name__} declares threshold {got.threshold:.6g} and {got.decay} after a scheduler "
            f"has set {changes}; one constructed with these values declares {expected.threshold:.6g} and "
            f"{expected.decay}. Likely cause: it reads defaults; read self.values."
        )
    return "both follow"


def check_geometry_changes_nothing(optimizer: type[OptimizerBase]) -> str:
    """geometry() changes neither weights nor state nor the next steps."""
    for values in with_decay(optimizer):
        observed, other = (OptimizerHarness.build(optimizer, values) for _ in range(2))
        for gradient in gradients(observed.space.dim, 10, seed=6):
            observed.geometry(gradient)
            assert torch.equal(observed.step(gradient), other.step(gradient)), (
                f"{optimizer.__name__}.geometry() changes what the next step does, with {values}. "
                "Likely cause: it writes into `state`; work on a copy."
            )
    return "identical steps"


def check_state_is_complete(optimizer: type[OptimizerBase]) -> str:
    """A new optimizer that loads state_dict() takes bitwise identical steps: the state is complete."""
    for values in with_decay(optimizer):
        for steps in (0, 1, 7):
            first = OptimizerHarness.build(optimizer, values).warm_up(steps)
            assert _same_steps(first, first.copy(), seed=7), (
                f"{optimizer.__name__} takes other steps after its state_dict() of step {steps} was loaded "
                f"into a new optimizer, with {values}. Likely cause: a value it needs is not in `self.state`."
            )
    return "identical steps"


def check_state_can_be_saved(optimizer: type[OptimizerBase]) -> str:
    """A checkpoint can hold state_dict(): the steps of a resumed run are bitwise identical."""
    for values in variants(optimizer, lr=LR):
        first = OptimizerHarness.build(optimizer, values).warm_up(5)
        second = first.copy()
        with tempfile.TemporaryDirectory() as folder:
            try:
                checkpoint.save(Path(folder), 5, {"optimizer": first.optimizer.state_dict()})
            except TypeError as error:
                raise AssertionError(
                    f"{optimizer.__name__}.state_dict() cannot be saved: {one_line(error)}. Likely cause: "
                    "an object in `state`; a checkpoint holds tensors, numbers, strings, lists and dicts."
                ) from error
            loaded = checkpoint.load_latest(Path(folder), print)
        assert loaded is not None
        second.optimizer.load_state_dict(loaded[1]["optimizer"])
        assert _same_steps(first, second, seed=8), (
            f"{optimizer.__name__} takes other steps after its state_dict() was saved and loaded, with "
            f"{values}. Likely cause: tensors in `state` share memory; a checkpoint separates them."
        )
    return "identical steps"


def _same_steps(first: OptimizerHarness, second: OptimizerHarness, seed: int) -> bool:
    return all(torch.equal(first.step(g), second.step(g)) for g in gradients(first.space.dim, 7, seed))


def check_is_deterministic(optimizer: type[OptimizerBase]) -> str:
    """The same gradients give bitwise identical steps."""
    for values in with_decay(optimizer):
        a, b = (OptimizerHarness.build(optimizer, values).warm_up(10) for _ in range(2))
        assert torch.equal(a.space.weights(), b.space.weights()), (
            f"{optimizer.__name__} takes different steps for the same gradients, with {values}. "
            "Likely causes: random numbers, the time, or state that all instances share."
        )
    return "identical steps"


def check_all_tensors_at_once(optimizer: type[OptimizerBase]) -> str:
    """`update_all`, which moves all tensors on a GPU, takes bitwise the steps of `update`."""
    if not issubclass(optimizer, FamilyOptimizer) or optimizer.update_all is FamilyOptimizer.update_all:
        return "no update_all of its own"
    for values in with_decay(optimizer):
        loop, at_once = (OptimizerHarness.build(optimizer, values) for _ in range(2))
        for gradient in gradients(loop.space.dim, 5, seed=9):
            expected = loop.step(gradient)
            at_once.set_gradient(gradient)
            cast(FamilyOptimizer, at_once.optimizer).move(at_once=True)
            assert torch.equal(at_once.space.weights(), expected), (
                f"{optimizer.__name__}.update_all takes other steps than update, with {values}. Likely "
                "cause: a factor in another order, or state that only one of them writes."
            )
    return "identical steps"


def check_one_parameter_group(optimizer: type[OptimizerBase]) -> str:
    """A second parameter group raises ValueError: one threshold needs one learning rate."""
    harness = OptimizerHarness.build(optimizer, variants(optimizer, lr=LR)[0])
    try:
        harness.optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    except ValueError as error:
        return f"ValueError: {one_line(error)}"
    raise AssertionError(
        f"{optimizer.__name__} accepts a second parameter group; its threshold is one number. Likely cause: "
        "it overrides add_param_group."
    )
