from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from optim_family.networks.builtin import BUILTIN, ResidualBlock, bn_cnn, bn_mlp, resnet20, vgg11
from optim_family.networks.cards import Card


def trace(network, x):
    """Shapes after every layer of a sequence."""
    shapes = {}
    for name, layer in network.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape[1:])
    return shapes


def weights(network):
    return sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_the_small_cnn_has_three_convolutions_that_double_the_channels_and_halve_the_image():
    shapes = trace(bn_cnn(10, 1, (8, 8)), torch.randn(2, 1, 8, 8))
    assert [shapes[f"conv{i}"] for i in (1, 2, 3)] == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    assert shapes["flatten"] == (32,) and shapes["fc"] == (10,)


def test_the_perceptron_flattens_images_of_any_shape():
    network = bn_mlp(10, 3, (5, 7), width=11)
    assert [m.in_features for m in network.modules() if isinstance(m, nn.Linear)] == [105, 11, 11]
    assert network(torch.randn(2, 3, 5, 7)).shape == (2, 10)


def test_resnet20_has_twenty_layers_three_stages_and_its_papers_number_of_weights():
    network = resnet20(10, 3, (32, 32))
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 20
    shapes = trace(network, torch.randn(2, 3, 32, 32))
    assert [shapes[f"stage{i}"] for i in (1, 2, 3)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert round(weights(network), -4) == 270_000  # table 6 of the paper: 0.27 million


def test_vgg11_at_full_width_is_timms_layer_by_layer():
    import timm

    def layers(network):
        kinds = nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d
        return [module for module in network.modules() if isinstance(module, kinds)]

    theirs = timm.create_model("vgg11_bn", mlp_ratio=0.001)
    ours = vgg11(10, 3, (32, 32), width=64)
    pairs = list(zip(layers(ours), layers(theirs.features), strict=True))
    assert [type(a) for a, _ in pairs] == [type(b) for _, b in pairs]
    with torch.no_grad():
        for a, b in pairs:
            if isinstance(a, nn.Conv2d):
                b.bias.zero_()  # ours has none
            a.load_state_dict(b.state_dict(), strict=not isinstance(a, nn.Conv2d))
        x = torch.randn(4, 3, 64, 64)
        y = x
        for layer in layers(ours):
            y = layer(y)
        assert torch.equal(y, theirs.features(x))


def test_vgg11_doubles_its_channels_and_halves_the_image_five_times():
    shapes = trace(vgg11(10, 3, (32, 32), width=8), torch.randn(2, 3, 32, 32))
    pools = [shapes[f"pool{i}"] for i in range(1, 6)]
    assert pools == [(8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2), (64, 1, 1)]
    assert weights(vgg11(10, 3, (32, 32), width=8)) == 144_216 + 640  # and the read-out


@pytest.mark.parametrize("build", [bn_cnn, resnet20])
def test_doubling_the_width_multiplies_the_weights_of_inner_layers_by_four(build):
    def inner(width):
        return weights(build(10, 3, (8, 8), width=width)) - 27 * width - 40 * width

    assert inner(8) == 4 * inner(4)


def test_a_block_with_a_silent_branch_passes_on_its_input_subsampled_and_padded():
    block = ResidualBlock(3, 5, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 3, 4, 4)
    y = block(x)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_no_convolution_or_linear_layer_has_a_bias():
    for build in BUILTIN.values():
        layers = [m for m in build(10, 1, (8, 8)).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert layers and all(layer.bias is None for layer in layers)


@pytest.mark.parametrize("width", [0, -1, 2.5, "8", True])
def test_a_width_that_is_no_positive_whole_number_is_refused(width):
    for build in BUILTIN.values():
        with pytest.raises(ValueError, match="width must be a whole number above 0"):
            build(10, 1, (8, 8), width=width)


def test_a_card_may_name_exactly_the_networks_that_exist():
    literal, _ = get_args(get_type_hints(Card)["builtin"])
    assert set(get_args(literal)) == set(BUILTIN)


def test_weights_start_with_a_variance_of_two_over_their_inputs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = resnet20(10, 3, (32, 32)).stage3[1].conv1.weight  # 36,864 of them: 0.7 % is one sigma
    assert convolution.var().item() * convolution[0].numel() == pytest.approx(2, rel=0.04)
