"""Weights from a file: all of them or nothing, and what is wrong in one line."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from optim_family.errors import CorruptError, UsageError
from optim_family.networks.pretrained import load_weights


def network(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def saved(tmp_path, tensors):
    save_file(tensors, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_the_tensors_of_a_file_come_into_the_network_in_its_own_dtype(tmp_path):
    there = network()
    nn.init.normal_(there[1].running_mean)
    path, here = saved(tmp_path, there.state_dict()), network().double()
    digest = load_weights(here, path, "mine")
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, there.state_dict()[name].to(tensor.dtype))
    assert here[0].weight.dtype == torch.float64


def test_the_network_is_found_in_a_checkpoint_of_a_run(tmp_path):
    there, here = network(), network()
    tensors = {f"tree['model']['{name}']": tensor for name, tensor in there.state_dict().items()}
    load_weights(here, saved(tmp_path, tensors | {"tree['optimizer']['v']": torch.ones(2)}), "mine")
    assert torch.equal(here[2].weight, there[2].weight)


@pytest.mark.parametrize("mode", ["true", "false"])
def test_a_checkpoint_at_the_gradients_of_a_schedule_free_optimizer_is_refused(tmp_path, mode):
    there, here = network(), network()
    tensors = {f"tree['model']['{name}']": tensor for name, tensor in there.state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file(tensors, path, {"tree": f'{{"param_groups": [["lr", 0.1], ["train_mode", {mode}]]}}'})
    if mode == "false":  # the weights are the average
        load_weights(here, path, "mine")
        assert torch.equal(here[2].weight, there[2].weight)
        return
    before = here[0].weight.detach().clone()
    with pytest.raises(UsageError, match="the weights at which a schedule-free optimizer computes gradients"):
        load_weights(here, path, "mine")
    assert torch.equal(here[0].weight, before)


def test_a_buffer_may_be_missing_and_a_parameter_may_not(tmp_path):
    tensors = dict(network().named_parameters())
    here = network()
    load_weights(here, saved(tmp_path, {name: p.detach() for name, p in tensors.items()}), "mine")
    assert torch.equal(here[0].weight, tensors["0.weight"])
    assert torch.equal(here[1].running_var, torch.ones(3))


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda state: without(state, "0.bias"), "does not fit mine: it has no 0.bias"),
        (lambda state: state | {"fc": torch.ones(1)}, "it has an unknown fc"),
        (lambda state: state | {"0.weight": torch.ones(4, 2)}, r"0.weight \[4, 2\] instead of \[3, 2\]"),
        (
            lambda state: {"a": torch.ones(1), **without(state, "2.bias")},
            "it has no 2.bias; it has an unknown a$",
        ),
        (lambda state: {"x": torch.ones(1)}, r"it has no 0.weight, 0.bias, 1.weight, …\(\+3\)"),
    ],
)
def test_the_weights_of_another_network_are_refused_with_what_differs(tmp_path, change, line):
    here = network()
    before = here[0].weight.detach().clone()
    with pytest.raises(UsageError, match=line):
        load_weights(here, saved(tmp_path, change(network().state_dict())), "mine")
    assert torch.equal(here[0].weight, before)


def test_a_damaged_file_is_said_to_be_damaged(tmp_path):
    path = saved(tmp_path, network().state_dict())
    for name, data in (("text", b"not tensors at all"), ("short", path.read_bytes()[:-4]), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorruptError, match=f"{name} is not a safetensors file, or is damaged"):
            load_weights(network(), tmp_path / name, "mine")
    bad = network().state_dict()
    bad["0.weight"][0, 0] = torch.nan
    with pytest.raises(CorruptError, match=r"not finite: 0\.weight"):
        load_weights(network(), saved(tmp_path, bad), "mine")


def test_a_file_that_is_not_there_is_said_not_to_be_there(tmp_path):
    with pytest.raises(UsageError, match="nowhere cannot be read: No such file"):
        load_weights(network(), tmp_path / "nowhere", "mine")
    with pytest.raises(
        UsageError, match=r"cannot be read: Is a directory; give a \.safetensors file or a checkpoint"
    ):
        load_weights(network(), tmp_path, "mine")
