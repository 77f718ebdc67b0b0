"""Models of an installed distribution, and their defects."""

import pytest

from optim_family.errors import PluginError, UsageError
from optim_family.networks import build, cards
from tests.helpers.cli_runner import optim_family
from tests.helpers.shapes_plugin import SOURCE


def test_a_model_is_adapted_like_every_other(shapes_plugin):
    """BatchNorm has no trained γ and the read-out is frozen: one trained matrix is left."""
    shapes_plugin()
    network = build.build("tiny", classes=3, channels=1, size=(4, 4))
    trained = {name: tuple(p.shape) for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"linear.weight": (8, 16)}


def test_a_card_may_name_a_registered_model(shapes_plugin, tmp_path):
    shapes_plugin()
    card = tmp_path / "wide.toml"
    card.write_text('summary = "wide"\nplugin = "tiny"\nkwargs = { width = 11 }\n')
    network = build.build(str(card), classes=3, channels=1, size=(4, 4))
    assert network.linear.weight.shape == (11, 16)


def test_listing_models_imports_nothing(shapes_plugin, capsys):
    shapes_plugin("raise RuntimeError('imported')")
    assert cards.summaries()["tiny"] == "of shapes 2.0"
    assert "tiny" in optim_family(capsys, "models").out


def test_a_packaged_name_is_not_taken_over(shapes_plugin):
    shapes_plugin(model="bn_cnn")
    assert cards.load("bn_cnn").builtin == "bn_cnn" and "bn_cnn" not in cards.registered_models()


def test_what_a_model_prints_goes_to_stderr(shapes_plugin, capsys):
    shapes_plugin(SOURCE.replace("flat =", "print('b'); flat ="))
    build.build("tiny", classes=3, channels=1, size=(4, 4))
    assert capsys.readouterr() == ("", "b\n")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("import sys", "sys", "cannot be imported: NameError: "),
        ("flat = channels", "sys.exit('no')\n    flat = channels", "cannot be built: SystemExit: no"),
        ("return nn.Sequential(", "return dict(", "returns dict, not an nn.Module"),
    ],
)
def test_a_broken_model_is_an_error_with_its_name(shapes_plugin, old, new, says):
    shapes_plugin(SOURCE.replace(old, new, 1))
    with pytest.raises(PluginError) as caught:
        build.build("tiny", classes=3, channels=1, size=(4, 4))
    assert str(caught.value).startswith("model 'tiny' of shapes 2.0 ") and says in str(caught.value)


def test_two_distributions_with_one_name_clash(shapes_plugin):
    shapes_plugin()
    shapes_plugin(name="forms")
    with pytest.raises(PluginError, match=r"model 'tiny' is registered by forms 2\.0 and by shapes 2\.0"):
        build.build("tiny", classes=3, channels=1, size=(4, 4))


def test_an_unknown_name_gets_the_nearest_one(shapes_plugin):
    shapes_plugin()
    with pytest.raises(UsageError, match="no model 'tinny'; did you mean 'tiny'"):
        cards.load("tinny")
