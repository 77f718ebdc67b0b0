"""Switches of torch for determinism, and what is found of operations that have no deterministic kernel."""

import warnings

import pytest
import torch
from torch import nn

from optim_family.curvature import precision
from optim_family.curvature.double_backward import second_derivatives


@pytest.mark.parametrize("gpu", [True, False])
def test_deterministic_algorithms_are_for_a_gpu_and_are_restored(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with precision.deterministic():
        assert torch.are_deterministic_algorithms_enabled() is gpu
        assert torch.is_deterministic_algorithms_warn_only_enabled() is gpu
        assert torch.utils.deterministic.fill_uninitialized_memory is (filled and not gpu)
        assert torch.backends.cudnn.deterministic
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is filled
    with precision.deterministic_convolutions():
        assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic


def test_an_operation_is_named_once_and_other_warnings_pass():
    names: list[str] = []
    with pytest.warns(UserWarning, match="another"), precision.find_nondeterministic(names):
        for _ in range(2):
            warnings.warn("put_ does not have a deterministic implementation, but you set", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert names == ["put_"]


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn_relu", "rnn_tanh"])
def test_the_forward_pass_of_an_rnn_is_measured_without_cudnn(name, monkeypatch):
    seen = []
    real = getattr(torch._VF, name)

    def spy(*args):
        seen.append(torch.backends.cudnn.enabled)
        return real(*args)

    monkeypatch.setattr(torch._VF, name, spy, raising=False)
    options = {"nonlinearity": name[4:]} if name.startswith("rnn") else {}
    layer = getattr(nn, name.partition("_")[0].upper())(2, 3, **options)
    layer(torch.zeros(1, 4, 2))
    with second_derivatives():
        layer(torch.zeros(1, 4, 2))
        assert torch.backends.cudnn.enabled  # convolutions keep it
    assert seen == [True, False]
