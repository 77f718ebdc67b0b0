"""The conformance suite on the real classes of torch and timm whose geometry is known, and on two without."""

import pytest

from optim_family import registry, testing
from optim_family.conformance.geometry_checks import NO_METRIC
from optim_family.conformance.runner import run_check
from optim_family.optimizers.external.wrapper import wrap_external

# With all the momenta, amsgrad, centred, decay coupled and decoupled: whatever is a choice is tried.
TORCH = ("SGD", "ASGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Adamax")
KNOWN = (*(f"torch:{name}" for name in TORCH), "timm:rmsproptf", "timm:lamb")
WITHOUT = ("torch:Muon", "timm:lion")
ABOUT_THE_METRIC = {
    testing.check_threshold_is_sharp,
    testing.check_metric_is_that_of_the_step,
    testing.check_freeze_holds_the_metric,
}


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*KNOWN, *WITHOUT])
def test_the_real_class_passes_every_check_but_its_expected_failures(name, check):
    optimizer = wrap_external(name)
    passed, measured = run_check(check, optimizer)
    assert passed != (check.__name__.removeprefix("check_") in optimizer.expected_failures), measured
    if check in ABOUT_THE_METRIC:
        assert (measured == NO_METRIC) == (name in WITHOUT)


def test_only_lamb_expects_failures():
    """Its trust ratio moves with every step; test_inferred_geometry tests it with a constant ratio."""
    assert {name for name in (*KNOWN, *WITHOUT) if wrap_external(name).expected_failures} == {"timm:lamb"}


def test_what_takes_matrices_only_is_tried_on_matrices():
    assert {len(shape) for shape in wrap_external("torch:Muon").test_shapes} == {2}
    assert {len(shape) for shape in wrap_external("torch:SGD").test_shapes} == {1, 2}


@pytest.mark.parametrize(
    ("name", "field", "beta"),
    [("gd", "momentum", 0.97), ("adamw", "beta1", 0.97), ("torch:SGD", "momentum", 0.99)],
)
def test_a_strong_momentum_has_its_threshold_too(name, field, beta):
    optimizer = registry.load(name)
    hyper = type("Hyper", (optimizer.Hyper,), {"__annotations__": {field: float}, field: beta})
    assert testing.check_threshold_is_sharp(type("Strong", (optimizer,), {"Hyper": hyper})).startswith("×")
