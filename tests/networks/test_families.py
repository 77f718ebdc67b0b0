"""The models of the sweep: how a command selects them, and that each can be built."""

import sys

import pytest
import torch
from torch import nn

from optim_family.errors import UsageError
from optim_family.networks.families import catalogue, detection, example, timm, torchvision
from optim_family.networks.families.torch import MODULES

TORCH = [f"torch/{name}" for name in MODULES]


def select(*patterns):
    lines = []
    selection = catalogue.select(patterns, lines.append)
    return selection.models, selection.missing, lines


@pytest.fixture
def without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)


def loss_of(built):
    x, y = built.chunk
    model = built.model.double()
    outputs = model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple | list) else model(x)
    loss = built.loss_fn(outputs, y)
    return getattr(loss, "loss", loss)


@pytest.mark.parametrize(
    "model", [*TORCH, "timm/test_resnet", "torchvision/squeezenet1_1", "torchvision/shufflenet_v2_x0_5"]
)
def test_a_model_has_a_finite_loss(model):
    torch.manual_seed(0)
    assert torch.isfinite(loss_of(catalogue.build(model)))


def test_the_models_of_transformers_have_a_loss():
    pytest.importorskip("transformers")
    from optim_family.networks.families import transformers

    for name in transformers.names():
        torch.manual_seed(0)
        assert torch.isfinite(loss_of(catalogue.build(f"transformers/{name}"))), name


def test_the_same_seed_builds_the_same_model():
    def built():
        torch.manual_seed(0)
        return catalogue.build("timm/test_resnet")

    first, second = built(), built()
    assert torch.equal(first.chunk[0], second.chunk[0])
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))


def test_a_wildcard_selects_models_of_the_sweep_and_lists_a_source_once():
    assert select("torch/*") == (TORCH, [], ["torch: listing its models …"])
    models, _, lines = select("torch/*lstm", "torch/?nn", "torch/*lstm")
    assert models == ["torch/lstm", "torch/bidirectional lstm", "torch/projected lstm", "torch/rnn"]
    assert lines == ["torch: listing its models …"]


def test_a_wildcard_without_a_source_searches_all(monkeypatch, without_transformers):
    monkeypatch.setattr(timm, "names", lambda: ["a_lstm", "b"])
    models, missing, _ = select("*lstm")
    assert models == ["torch/lstm", "torch/bidirectional lstm", "torch/projected lstm", "timm/a_lstm"]
    assert missing == ["transformers"]


def test_without_a_pattern_the_whole_sweep_is_selected(monkeypatch, without_transformers):
    monkeypatch.setattr(timm, "names", lambda: ["a", "b"])
    models, missing, _ = select()
    assert models[: len(TORCH)] == TORCH and models[len(TORCH) :][:2] == ["timm/a", "timm/b"]
    assert missing == ["transformers"]
    assert [m for m in models if m.startswith("detection/")] == [f"detection/{n}" for n in detection.names()]


def test_a_full_name_may_be_one_outside_the_sweep():
    assert select("timm/resnet50", "torch/rnn")[0] == ["timm/resnet50", "torch/rnn"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("torch/lstn", "no model 'torch/lstn'; the nearest are torch/lstm, "),
        ("torch/zzzzzzzz", "no model 'torch/zzzzzzzz'; `optim-family models check --sweep --dry-run` lists"),
        ("resnet18", "no model 'resnet18'; the nearest are (torchvision|timm)/resnet18, "),
        ("trch/rnn", "no source of models 'trch'; did you mean 'torch'"),
        ("torch/zz*", r"no model of the sweep matches 'torch/zz\*'; `optim-family models check --sweep"),
        ("zz*/rnn", r"no model of the sweep matches 'zz\*/rnn'; "),
    ],
)
def test_a_wrong_name_gets_the_nearest_ones(pattern, says):
    with pytest.raises(UsageError, match=says) as raised:
        select(pattern)
    assert "\n" not in str(raised.value)


def test_models_of_a_package_that_is_not_installed_are_left_out(without_transformers):
    assert select("transformers/bert", "torch/rnn")[:2] == (["torch/rnn"], ["transformers"])
    assert select("trans*/*", "torch/rnn")[:2] == (["torch/rnn"], ["transformers"])


def test_the_sweep_has_the_smallest_model_of_each_family_by_size(monkeypatch):
    monkeypatch.setattr(timm.timm.models, "list_modules", lambda: ["vgg", "starnet", "_no_models"])
    sizes = [timm._size(name) for name in timm.names()]
    assert len(sizes) == 2 and sizes == sorted(sizes)
    assert sizes[0] == timm._size("starnet_s1") < timm._size("starnet_s2")


def test_classifiers_of_torchvision_come_one_from_a_module():
    names = torchvision.names()
    assert {"resnet18", "squeezenet1_1"} <= set(names) and "resnet34" not in names
    assert names == sorted(names)


@pytest.mark.parametrize("model", ["timm/vgg11", "torchvision/vit_b_16"])
def test_a_large_model_is_refused(model):
    with pytest.raises(
        ValueError, match="more than 60,000,000 weights: 25 vectors of a search take over 12 GB"
    ):
        catalogue.build(model)


def test_a_model_that_takes_no_size_of_images_says_why(monkeypatch):
    monkeypatch.setattr(timm, "SIZES", (1,))
    with pytest.raises(ValueError, match=r"no image size from 32 to 256 fits: .+"):
        catalogue.build("timm/test_vit")


def test_a_large_depth_is_reduced(monkeypatch):
    full = timm._size("vit_tiny_patch16_224", num_classes=10)
    monkeypatch.setattr(timm, "LARGEST", full - 1)
    assert example.parameter_count(catalogue.build("timm/vit_tiny_patch16_224").model) < full


def test_the_loss_takes_logits_from_heads_and_objects():
    y = torch.arange(3)
    logits = nn.Linear(2, 3)(torch.ones(3, 2))
    expected = nn.functional.cross_entropy(logits, y)

    class Output:
        def __init__(self):
            self.logits = logits

    for outputs in (logits, (logits, None), [logits], Output()):
        assert torch.equal(example.classification_loss(outputs, y), expected)
