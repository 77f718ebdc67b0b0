"""How an optimizer behaves: towards schedules, observers, checkpoints, repetition and parameter groups.

Each check returns what it found in a few words, or raises an AssertionError.
"""

import tempfile
from pathlib import Path

import torch

from optim_family.conformance.harness import LR, OptimizerHarness, gradients, variants, with_decay
from optim_family.errors import one_line
from optim_family.optimizers.base import OptimizerBase
from optim_family.training import checkpoint


def check_geometry_follows_a_schedule(optimizer: type[OptimizerBase]) -> str:
    """geometry() reads the hyper-parameters in force, which schedulers change, and not `defaults`."""
    for values in with_decay(optimizer):
        bench = OptimizerHarness.build(optimizer, values).warm_up(20)
        changes = {"lr": values["lr"] / 2, "weight_decay": values["weight_decay"] * 1.5}
        expected = bench.copy(**changes).geometry()
        bench.set(**changes)
        got = bench.geometry()
        assert got.threshold == expected.threshold and got.decay == expected.decay, (
            f"{optimizer.__name__} says threshold {got.threshold:.6g} and {got.decay} after a scheduler has "
            f"set {changes}; one made with these says {expected.threshold:.6g} and {expected.decay}. "
            "Likely cause: it reads defaults; read param_groups."
        )
    return "they follow"


def check_geometry_changes_nothing(optimizer: type[OptimizerBase]) -> str:
    """Looking at the geometry leaves weights, state and the next steps as they were."""
    for values in with_decay(optimizer):
        watched, alone = OptimizerHarness.build(optimizer, values), OptimizerHarness.build(optimizer, values)
        for gradient in gradients(watched.space.dim, 10, seed=6):
            watched.geometry(gradient)
            watched.optimizer.step()
            assert torch.equal(watched.space.weights(), alone.step(gradient)), (
                f"{optimizer.__name__}.geometry() changes what the next step does, with {values}. "
                "Likely cause: it writes into `state`, where it should work on a copy."
            )
    return "the same steps"


def check_state_is_complete(optimizer: type[OptimizerBase]) -> str:
    """A new optimizer that loads state_dict() goes on bit for bit; nothing is remembered elsewhere."""
    for values in with_decay(optimizer):
        for steps in (0, 1, 7):
            first = OptimizerHarness.build(optimizer, values).warm_up(steps)
            second = first.copy()
            for gradient in gradients(first.space.dim, 7, seed=7):
                assert torch.equal(first.step(gradient), second.step(gradient)), (
                    f"{optimizer.__name__} goes on differently after its state_dict() of step {steps} was "
                    f"loaded into a new one, with {values}. Likely cause: something it needs is not in "
                    "`self.state`."
                )
    return "the same steps"


def check_state_can_be_saved(optimizer: type[OptimizerBase]) -> str:
    """A checkpoint takes state_dict() in and gives it back: a resumed run goes on bit for bit."""
    for values in variants(optimizer, lr=LR):
        first = OptimizerHarness.build(optimizer, values).warm_up(5)
        second = first.copy()
        with tempfile.TemporaryDirectory() as folder:
            try:
                checkpoint.save(Path(folder), 5, {"optimizer": first.optimizer.state_dict()})
            except TypeError as error:
                raise AssertionError(
                    f"{optimizer.__name__}.state_dict() cannot be saved: {one_line(error)}. Likely cause: "
                    "an object in `state`; a checkpoint holds tensors, numbers, words, lists and dicts."
                ) from error
            loaded = checkpoint.load_latest(Path(folder), print)
        assert loaded is not None
        second.optimizer.load_state_dict(loaded[1]["optimizer"])
        for gradient in gradients(first.space.dim, 7, seed=8):
            assert torch.equal(first.step(gradient), second.step(gradient)), (
                f"{optimizer.__name__} goes on differently after its state_dict() was saved and loaded, with "
                f"{values}. Likely cause: tensors in `state` that share their memory, which is lost."
            )
    return "the same steps"


def check_is_deterministic(optimizer: type[OptimizerBase]) -> str:
    """The same gradients give the same steps, bit for bit."""
    for values in with_decay(optimizer):
        a, b = (OptimizerHarness.build(optimizer, values).warm_up(10) for _ in range(2))
        assert torch.equal(a.space.weights(), b.space.weights()), (
            f"{optimizer.__name__} takes different steps for the same gradients, with {values}. "
            "Likely causes: random numbers, the time, or a memory that all its objects share."
        )
    return "the same steps"


def check_one_parameter_group(optimizer: type[OptimizerBase]) -> str:
    """A second group is refused, with a reason: one threshold needs one learning rate."""
    bench = OptimizerHarness.build(optimizer, variants(optimizer, lr=LR)[0])
    try:
        bench.optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    except ValueError as error:
        return f"refused: {one_line(error)}"
    raise AssertionError(
        f"{optimizer.__name__} accepts a second parameter group; its threshold is one number. Likely cause: "
        "an add_param_group of its own."
    )
