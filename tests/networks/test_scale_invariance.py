"""Toys whose answer is known, then every packaged card: it must keep the promise it makes."""

import math

import pytest
import torch
from torch import nn

from optim_family.errors import UsageError
from optim_family.networks import cards
from optim_family.networks.build import build
from optim_family.networks.scale_invariance import ScaleInvariance, check
from tests.helpers.parameters import trained


def mse(network, channels=1, size=(8, 8)):
    """½‖f − y‖² on four random images, in the network's dtype."""
    dtype = next(network.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, channels, *size, generator=generator).to(dtype)
    y = torch.randn(4, 10, generator=generator).to(dtype)
    return lambda: (network(x) - y).square().sum(1).mean() / 2


def verdict(name, **options):
    network = build(name, classes=10, channels=1, size=(8, 8), **options)
    return check(mse(network), trained(network))


@pytest.fixture
def pair():
    """Two trained vectors in float64."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(5, generator=generator).double().requires_grad_() for name in ("a", "b")}


def rayleigh(w):
    return (torch.arange(w.numel()) * w.square()).sum() / w.square().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", cards.names())
def test_every_card_keeps_its_promise_to_the_last_bit(name, dtype):
    assert cards.load(name).expect.invariant == "bitwise"
    assert verdict(name, dtype=dtype) == ScaleInvariance(True, True, 0.0, 0.0)


def test_trained_affine_parameters_break_invariance_and_the_last_ones_are_named_first():
    result = verdict("bn_cnn", norm="affine", dtype=torch.float64)
    assert not result.invariant
    assert result.breaking[0] == "norm3.weight"
    assert {"norm1.bias", "norm2.bias"} < set(result.breaking)


def test_without_normalisation_every_tensor_breaks_invariance():
    result = verdict("resnet20", norm="none")
    network = build("resnet20", classes=10, channels=1, size=(8, 8), norm="none")
    assert not result.invariant
    assert set(result.breaking) == set(trained(network))
    assert result.summary.startswith("not scale-invariant: loss changes by ")
    assert result.summary.endswith(", …(+16)")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_ordinary_eps_is_seen_and_blamed_on_the_convolutions(dtype):
    network = build("bn_cnn", classes=10, channels=1, size=(8, 8), dtype=dtype)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    result = check(mse(network), trained(network))
    assert 0 < result.loss_error < 1e-3
    assert not result.invariant and "conv3.weight" in result.breaking


def test_a_quotient_is_exactly_invariant(pair):
    result = check(lambda: rayleigh(torch.cat([*pair.values()])), pair)
    assert result == ScaleInvariance(True, True, 0.0, 0.0)
    assert result.summary == "exactly scale-invariant (loss equal, gradient half at 2w, bitwise)"


def test_only_the_tensor_that_breaks_it_is_named(pair):
    result = check(lambda: rayleigh(pair["a"]) + pair["b"].square().sum(), pair)
    assert result.breaking == ("b",)
    assert result.summary.endswith("; broken by b")


def test_the_errors_are_relative(pair):
    result = check(lambda: pair["a"].square().sum(), {"a": pair["a"]})
    assert result.loss_error == pytest.approx(3)  # L(2w) = 4 L(w)
    assert result.gradient_error == pytest.approx(3)  # 2 g(2w) = 4 g(w)


def test_a_tensor_of_zeros_cannot_hide(pair):
    zero = {"a": pair["a"], "zero": torch.zeros(5, dtype=torch.float64, requires_grad=True)}
    result = check(lambda: rayleigh(zero["a"]) + (1 + zero["zero"]).square().sum(), zero)
    assert result.loss_error == 0 and result.gradient_error > 0
    assert result.breaking == ("zero",)
    assert not zero["zero"].any()


def test_a_gradient_that_does_not_halve_is_enough_to_refute(pair):
    result = check(lambda: rayleigh(pair["a"]) + (pair["a"] - pair["a"].detach()).sum(), {"a": pair["a"]})
    assert result.loss_error == 0 and not result.invariant
    assert result.summary.endswith("; no single tensor breaks it")


def test_a_tensor_that_the_loss_does_not_use_is_invariant(pair):
    assert check(lambda: rayleigh(pair["a"]), pair).exact


def test_a_loss_that_is_not_a_number_is_not_invariant(pair):
    result = check(lambda: pair["a"].sum() * math.nan, {"a": pair["a"]})
    assert not result.invariant and result.loss_error == math.inf


def test_weights_are_restored_to_the_last_bit(pair):
    with torch.no_grad():
        pair["a"][0] = 3e-324  # the smallest number: halving twice it would be a rounding
    before = {name: tensor.detach().clone() for name, tensor in pair.items()}
    check(lambda: pair["a"].exp().sum() + pair["b"].sum(), pair)
    assert all(torch.equal(pair[name], before[name]) for name in pair)
    assert all(tensor.grad is None for tensor in pair.values())


@pytest.mark.parametrize("fatal", [2, 3, 4])
def test_weights_are_restored_when_the_loss_raises(pair, fatal):
    calls = iter(range(1, 10))
    before = {name: tensor.detach().clone() for name, tensor in pair.items()}

    def loss():
        if next(calls) == fatal:
            raise KeyboardInterrupt
        return pair["a"].square().sum() + pair["b"].sum()

    with pytest.raises(KeyboardInterrupt):
        check(loss, pair)
    assert all(torch.equal(pair[name], before[name]) for name in pair)


def test_nothing_trained_is_a_mistake():
    with pytest.raises(UsageError, match="no tensor is trained"):
        check(lambda: torch.zeros(()), {})


def test_the_summary_of_rounding_on_a_gpu_gives_both_errors():
    assert ScaleInvariance(True, False, 1e-7, 3e-6).summary == (
        "scale-invariant to rounding (loss changes by 1.0e-07, gradient by 3.0e-06 at 2w)"
    )
