"""Models and data sets of another distribution, and what it may do wrong."""

import sys

import pytest

from optim_family.data import datasets
from optim_family.errors import CorruptError, PluginError, UsageError
from optim_family.networks import build, cards
from tests.helpers.cli_runner import optim_family

SOURCE = """
import sys
from collections import OrderedDict
import numpy as np
from torch import nn

def tiny(classes, channels, size, width=8):
    flat = channels * size[0] * size[1]
    layers = {"flatten": nn.Flatten(), "linear": nn.Linear(flat, width), "norm": nn.BatchNorm1d(width)}
    return nn.Sequential(OrderedDict(layers | {"fc": nn.Linear(width, classes)}))

def stripes():
    x = np.zeros((12, 4, 4), dtype=np.uint8)
    x[::2, ::2], x[1::2, :, ::2] = 255, 200
    y = np.arange(12) % 2
    parts = {"x_train": x[:8], "y_train": y[:8], "x_test": x[8:], "y_test": y[8:]}
    return parts | {"class_names": ["lying", "up"]}
"""


@pytest.fixture(name="plugin")
def plugin_fixture(tmp_path, monkeypatch):
    """Install a distribution `shapes` 2.0 that registers the model `tiny` and the data set `stripes`."""

    def put(source=SOURCE, name="shapes", model="tiny", images="stripes"):
        info = tmp_path / f"{name}-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        points = {"models": f"{model} = shapes:tiny", "data": f"{images} = shapes:stripes"}
        lines = [f"[optim_family.{group}]\n{point}\n" for group, point in points.items()]
        (info / "entry_points.txt").write_text("".join(lines))
        (tmp_path / "shapes.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield put
    sys.modules.pop("shapes", None)


def test_a_model_and_a_data_set_are_used_by_their_names(plugin, capsys, tmp_path):
    plugin()
    words = "--optimizer", "gd", "--model", "tiny", "--data", "stripes", "--steps", "2", "--every", "1"
    answer = optim_family(capsys, "run", *words, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    assert datasets.load("stripes").class_names == ("lying", "up")


def test_a_model_is_adapted_as_every_other(plugin):
    """BatchNorm without a trained γ, a fixed read-out: what is trained is one matrix."""
    plugin()
    network = build.build("tiny", classes=3, channels=1, size=(4, 4))
    trained = {name: tuple(p.shape) for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"linear.weight": (8, 16)}


def test_a_card_may_name_it(plugin, tmp_path):
    plugin()
    card = tmp_path / "wide.toml"
    card.write_text('summary = "wide"\nplugin = "tiny"\nkwargs = { width = 11 }\n')
    network = build.build(str(card), classes=3, channels=1, size=(4, 4))
    assert network.linear.weight.shape == (11, 16)


def test_listing_imports_nothing(plugin, capsys):
    plugin("raise RuntimeError('imported')")
    assert cards.summaries()["tiny"] == "of shapes 2.0"
    assert "tiny" in optim_family(capsys, "models").out
    assert "stripes of shapes 2.0" in optim_family(capsys, "data").err


def test_a_packaged_name_is_not_taken_over(plugin):
    plugin(model="bn_cnn", images="digits")
    assert cards.load("bn_cnn").builtin == "bn_cnn" and "bn_cnn" not in cards.registered_models()
    assert datasets.load("digits").classes == 10 and "digits" not in datasets.registered_datasets()


def test_what_they_print_does_not_mix_with_the_answer(plugin, capsys):
    plugin(SOURCE.replace("flat =", "print('b'); flat =").replace("x = np", "print('l'); x = np"))
    build.build("tiny", classes=3, channels=1, size=(4, 4))
    datasets.load("stripes")
    assert capsys.readouterr() == ("", "b\nl\n")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("import sys", "sys", "cannot be imported: NameError: "),
        ("flat = channels", "sys.exit('no')\n    flat = channels", "cannot be built: SystemExit: no"),
        ("return nn.Sequential(", "return dict(", "builds no nn.Module, but dict"),
    ],
)
def test_a_broken_model_is_named(plugin, old, new, says):
    plugin(SOURCE.replace(old, new, 1))
    with pytest.raises(PluginError) as caught:
        build.build("tiny", classes=3, channels=1, size=(4, 4))
    assert str(caught.value).startswith("model 'tiny' of shapes 2.0 ") and says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "kind", "says"),
    [
        (
            "x = np",
            "1 / 0; x = np",
            PluginError,
            "data set 'stripes' of shapes 2.0 cannot be loaded: ZeroDiv",
        ),
        ('"x_test"', '"x_tset"', PluginError, "cannot be loaded: KeyError: 'x_test'"),
        (
            "np.uint8",
            "float",
            CorruptError,
            "stripes of shapes 2.0: x_train is float64; images must be uint8",
        ),
    ],
)
def test_a_broken_data_set_is_named(plugin, old, new, kind, says):
    plugin(SOURCE.replace(old, new, 1))
    with pytest.raises(kind, match=says):
        datasets.load("stripes")


def test_two_distributions_with_one_name_clash(plugin):
    plugin()
    plugin(name="forms")
    with pytest.raises(PluginError, match=r"model 'tiny' is registered by forms 2\.0 and by shapes 2\.0"):
        build.build("tiny", classes=3, channels=1, size=(4, 4))


def test_an_unknown_name_is_told_what_there_is(plugin):
    plugin()
    with pytest.raises(UsageError, match="no model 'tinny'; did you mean 'tiny'"):
        cards.load("tinny")
    with pytest.raises(UsageError, match="no data set 'stripe'; did you mean 'stripes'"):
        datasets.load("stripe")
