import re

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from optim_family.errors import UsageError
from optim_family.networks import cards
from optim_family.networks.adapt import NORMS
from optim_family.networks.build import build
from optim_family.networks.scale_invariance import check
from optim_family.resources import folder
from optim_family.training.evaluation import recomputing_statistics
from tests.helpers.parameters import trained

SMALL = ["bn_cnn", "bn_mlp", "resnet20", "resnet20_narrow"]


def digits(name, **options):
    return build(name, **{"classes": 10, "channels": 1, "size": (8, 8), **options})


def images(n=6, channels=1, side=8, dtype=torch.float32):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


def norms(network):
    return [m for m in network.modules() if isinstance(m, NORMS)]


def readout(network):
    (frozen,) = [p for p in network.parameters() if not p.requires_grad and p.ndim > 1]
    return frozen


def card(tmp_path, text):
    (tmp_path / "mine.toml").write_text(f'summary = "mine"\n{text}')
    return str(tmp_path / "mine.toml")


def table():
    """Card → trained parameters, as models/README.md says."""
    text = (folder("models") / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d,]+) \|", text, flags=re.MULTILINE))


def refusal(*arguments, **options):
    with pytest.raises(UsageError) as caught:
        digits(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is frozen, and what is trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*SMALL, "mobilenetv2_100", "timm:test_vit"])
def test_frozen_normalisation_is_one_zero_and_has_an_eps_that_vanishes(name, dtype):
    size = (32, 32) if name == "timm:test_vit" else (8, 8)
    layers = norms(digits(name, dtype=dtype, size=size))
    assert layers
    for layer in layers:
        assert 0 < layer.eps < 1e-8 * torch.finfo(dtype).eps ** 2
        assert (layer.weight == 1).all() and not layer.bias.any()
        assert not layer.weight.requires_grad and not layer.bias.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SMALL)
def test_the_loss_is_the_same_to_the_last_bit_at_any_sensible_scale_of_the_weights(name, dtype):
    network, x = digits(name, dtype=dtype), images(dtype=dtype)
    weights = list(trained(network).values())
    before = [w.detach().clone() for w in weights]
    loss = network(x).square().sum()
    gradient = torch.autograd.grad(loss, weights)
    for exponent in (-20, -7, 9, 20):
        with torch.no_grad():
            for w, value in zip(weights, before, strict=True):
                w.copy_(value * 2.0**exponent)
        scaled = network(x).square().sum()
        assert torch.equal(scaled, loss)
        for g, expected in zip(torch.autograd.grad(scaled, weights), gradient, strict=True):
            assert torch.equal(g * 2.0**exponent, expected)


def derivatives(network, x):
    """∇L and H·1 of half the squared outputs, over the trained weights."""
    weights = list(trained(network).values())
    loss = network(x).square().sum() / 2
    gradient = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    return gradient, torch.autograd.grad(sum(g.sum() for g in gradient), weights, materialize_grads=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*SMALL, "timm:test_resnet"])
def test_where_every_unit_is_constant_all_derivatives_are_finite(name, dtype):
    gradient, product = derivatives(
        digits(name, dtype=dtype, size=(32, 32)), images(side=32, dtype=dtype) * 0
    )
    assert all(t.isfinite().all() for t in (*gradient, *product))


def test_attention_has_second_derivatives():
    _, product = derivatives(digits("timm:test_vit", size=(32, 32)), images(side=32))
    assert any(t.any() for t in product) and all(t.isfinite().all() for t in product)


def test_affine_normalisation_is_trained_from_one_and_zero_with_an_ordinary_eps():
    for layer in norms(digits("resnet18", norm="affine")):
        assert layer.eps == 1e-5
        assert (layer.weight == 1).all() and not layer.bias.any()
        assert layer.weight.requires_grad and layer.bias.requires_grad


def test_without_normalisation_its_activations_stay_and_write_into_nothing():
    def activations(norm):
        return [m for m in digits("mobilenetv2_100", norm=norm).modules() if isinstance(m, nn.ReLU6)]

    assert not norms(digits("mobilenetv2_100", norm="none"))
    assert len(activations("none")) == len(activations("affine")) == 35
    assert not any(activation.inplace for activation in activations("none"))


@pytest.mark.parametrize("name", [*SMALL, "vgg11_bn", "timm:test_resnet", "timm:test_efficientnet"])
def test_the_same_tensors_are_trained_with_and_without_normalisation_and_none_is_a_bias(name):
    frozen, removed = (trained(digits(name, norm=norm, size=(32, 32))) for norm in ("frozen-affine", "none"))
    assert frozen.keys() == removed.keys()
    assert all(torch.equal(frozen[key], removed[key]) for key in frozen)
    assert not [key for key in frozen if key.endswith("bias")]


def test_layers_lose_their_bias_and_any_other_is_held_at_zero(tmp_path):
    convolutions = [m for m in digits("vgg11_bn").modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 8 and all(m.bias is None for m in convolutions)
    small = "{ depth = 1, embed_dim = 32, num_heads = 2, use_rel_pos_bias = false }"
    beit = digits(card(tmp_path, f'timm = "beit_base_patch16_224"\nkwargs = {small}'), size=(32, 32))
    held = beit.blocks[0].attn.q_bias
    assert not held.requires_grad and not held.any()


@pytest.mark.parametrize("norm", ["frozen-affine", "affine", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_read_out_is_a_frozen_matrix_of_norm_one_whose_rows_sum_to_zero(norm, dtype):
    matrix = readout(digits("vgg11_bn", norm=norm, dtype=dtype))
    assert matrix.shape == (10, 512) and matrix.dtype == dtype
    assert matrix.norm().item() == pytest.approx(1, rel=4 * torch.finfo(dtype).eps)
    assert matrix.sum(1).abs().max() < 100 * torch.finfo(dtype).eps


def test_a_card_sets_the_norm_of_the_read_out_and_freezes_what_it_names(tmp_path):
    text = 'builtin = "bn_cnn"\n[adapt]\nfreeze = ["fc.*", "conv1.*"]\nreadout_norm = 3'
    network = digits(card(tmp_path, text), dtype=torch.float64)
    assert list(trained(network)) == ["conv2.weight", "conv3.weight"]
    assert network.fc.weight.norm().item() == pytest.approx(3)
    assert digits("bn_cnn").fc.weight.norm().item() == pytest.approx(10)


def test_a_card_that_freezes_nothing_trains_the_read_out(tmp_path):
    network = digits(card(tmp_path, 'builtin = "bn_mlp"\n[adapt]\nfreeze = []'))
    assert "fc.weight" in trained(network)


def test_nothing_is_random_in_a_forward_pass(tmp_path):
    chances = {"drop_path_rate": 0.5, "drop_rate": 0.5}
    stock = timm.create_model("test_vit", num_classes=10, in_chans=1, img_size=(32, 32), **chances)
    text = "drop_path_rate = 0.5, drop_rate = 0.5"
    ours = digits(card(tmp_path, f'timm = "test_vit"\nkwargs = {{ {text} }}'), size=(32, 32))
    x = images(side=32)
    assert not torch.equal(stock(x), stock(x))
    assert torch.equal(ours(x), ours(x))


# Shapes and stems


@pytest.mark.parametrize("name", cards.names())
def test_every_card_takes_digits_and_has_the_trained_parameters_of_its_table_each_with_a_gradient(name):
    network = digits(name)
    output = network(images(3))
    assert output.shape == (3, 10)
    gradients = torch.autograd.grad(output.square().sum(), list(trained(network).values()))
    assert all(g.isfinite().all() and g.any() for g in gradients)
    assert table()[name] == f"{sum(p.numel() for p in trained(network).values()):,}"


def test_the_table_has_every_card():
    assert sorted(table()) == cards.names()


def test_the_stock_resnet18_starts_with_silent_tensors_and_the_card_does_not():
    x = images(4, channels=3, side=32)
    stock = timm.create_model("resnet18", num_classes=10)
    ours = build("resnet18", classes=10, channels=3, size=(32, 32), norm="affine")

    def silent(network):
        gradients = torch.autograd.grad(network(x).square().sum(), list(trained(network).values()))
        return sum(not g.any() for g in gradients)

    assert silent(stock) > 0
    assert silent(ours) == 0


def test_the_small_stem_keeps_every_pixel():
    for name, stem in (
        ("resnet18", "conv1"),
        ("densenet121", "features.conv0"),
        ("mobilenetv2_100", "conv_stem"),
    ):
        network = digits(name)
        convolution = network.get_submodule(stem)
        assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((3, 3), (1, 1), (1, 1))
        assert not [m for m in network.modules() if isinstance(m, nn.MaxPool2d)]


# The three variants of normalisation


@pytest.mark.parametrize("norm", ["affine", "none"])
@pytest.mark.parametrize("name", cards.names())
def test_no_card_is_invariant_with_trained_or_without_normalisation(name, norm):
    network = digits(name, norm=norm)
    last = dict(list(trained(network).items())[-1:])
    x = images(3)
    verdict = check(lambda: network(x).square().mean(), last)
    assert not verdict.invariant
    assert verdict.breaking == tuple(last)


# Seeds and state


def test_a_seed_gives_the_same_network_in_every_precision_and_another_seed_another():
    a, b, c = (
        digits("resnet20", seed=3),
        digits("resnet20", seed=3, dtype=torch.float64),
        digits("resnet20", seed=4),
    )
    for name, tensor in trained(a).items():
        assert torch.equal(tensor.double(), trained(b)[name])
        assert not torch.equal(tensor, trained(c)[name])
    assert torch.allclose(readout(a).double(), readout(b), rtol=1e-6)
    assert not torch.equal(readout(a), readout(c))


def test_the_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = digits("bn_cnn")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(map(torch.equal, first.parameters(), digits("bn_cnn").parameters()))


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv2_100"])
def test_training_moves_no_buffer_and_does_not_read_any(name):
    network = digits(name)
    before = {key: value.clone() for key, value in network.named_buffers()}
    assert network.training and before
    output = network(images())
    assert all(torch.equal(value, before[key]) for key, value in network.named_buffers())
    for value in network.buffers():
        value.fill_(7)
    assert torch.equal(network(images()), output)
    assert not torch.equal(network.eval()(images()), output)


@pytest.mark.parametrize("name", ["bn_cnn", "mobilenetv2_100"])
def test_recomputed_statistics_are_the_means_over_the_batches(name):
    network = digits(name, dtype=torch.float64)
    batches = images(12, dtype=torch.float64).split(6)
    flags = [(m.momentum, m.track_running_stats) for m in norms(network)]
    seen = []
    hook = norms(network)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for scale in (3, 1):  # the second time starts again
        seen.clear()
        with torch.no_grad(), recomputing_statistics(network):
            for batch in batches:
                network(scale * batch)
    hook.remove()
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    torch.testing.assert_close(norms(network)[0].running_mean, mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(norms(network)[0].running_var, variance, rtol=1e-12, atol=0)
    assert [(m.momentum, m.track_running_stats) for m in norms(network)] == flags


def test_evaluation_with_the_statistics_of_one_batch_is_training_on_it_up_to_bessels_factor():
    network = digits("bn_cnn", dtype=torch.float64)
    x = images(64, dtype=torch.float64)
    with torch.no_grad(), recomputing_statistics(network):
        trains = network(x)
    for m in norms(network):
        n = 64 * {8: 64, 16: 16, 32: 4}[m.num_features]
        m.running_var *= (n - 1) / n
    torch.testing.assert_close(network.eval()(x), trains, rtol=1e-10, atol=1e-10)


def test_flags_are_restored_when_the_forward_pass_raises():
    network = digits("bn_cnn")
    with pytest.raises(RuntimeError), recomputing_statistics(network):
        network(images(channels=2))
    assert not any(m.track_running_stats for m in norms(network))
    assert all(m.momentum == 0.1 for m in norms(network))


@pytest.mark.parametrize(("name", "norm"), [("bn_cnn", "none"), ("timm:test_vit", "frozen-affine")])
def test_a_network_without_batch_normalisation_passes_through(name, norm):
    network = digits(name, size=(32, 32), norm=norm)
    assert not [m for m in network.modules() if isinstance(m, _BatchNorm)]
    with recomputing_statistics(network):
        inside = network(images(side=32))
    assert torch.equal(network(images(side=32)), inside)


# What cannot be built


def test_images_that_are_too_small_are_refused_with_a_size_that_fits(tmp_path):
    path = card(tmp_path, 'timm = "vgg11_bn"\nkwargs = { mlp_ratio = 0.001 }\n[adapt]\nhead = "average"')
    message = refusal(path)
    assert message.startswith("mine cannot process 8×8 images: ")
    assert message.endswith("; it works with 32×32 images; or choose another model")


def test_a_transformer_is_built_for_the_size_of_the_images_and_refuses_less_than_a_patch():
    assert (
        build("timm:test_vit", classes=3, channels=1, size=(48, 32))(images(2, side=32)[:, :, :, :])
        is not None
    )
    assert "8×8" in refusal("timm:test_vit")


def test_an_unknown_timm_model_is_answered_with_near_names_only():
    message = refusal("timm:resnet81")
    assert "there is no timm model 'resnet81'; did you mean 'resnet" in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('builtin = "bn_cnn"\nkwargs = { depth = 3 }', "unexpected keyword argument 'depth'"),
        ('builtin = "bn_cnn"\nkwargs = { width = 0 }', "width must be a whole number above 0, not 0"),
        ('timm = "test_resnet"\nkwargs = { colour = 1 }', "unexpected keyword argument 'colour'"),
        ('builtin = "bn_mlp"\n[adapt]\nstem = "conv3x3"', "has no convolution; leave adapt.stem out"),
        ('builtin = "bn_mlp"\n[adapt]\nhead = "average"', "leave adapt.head out"),
        (
            'builtin = "bn_mlp"\n[adapt]\nfreeze = ["head.*"]',
            "no parameter 'head.*' to freeze; its last ones are",
        ),
        ('timm = "test_resnet"\nkwargs = { num_classes = 7 }', "outputs of shape [1, 7], not [1, 10]"),
    ],
)
def test_a_card_that_does_not_fit_its_network_is_refused_in_one_line(tmp_path, text, message):
    assert message in refusal(card(tmp_path, text), size=(32, 32))
