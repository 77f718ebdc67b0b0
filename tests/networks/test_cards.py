import dataclasses
import re
import subprocess
import sys

import pytest

from optim_family.errors import UsageError
from optim_family.networks import cards
from optim_family.networks.cards import Adapt, Card
from optim_family.resources import folder

PACKAGED = [
    *("bn_cnn", "bn_mlp", "densenet121", "densenet_tiny", "mobilenetv2_035", "mobilenetv2_100", "resnet18"),
    *("resnet20", "resnet20_narrow", "resnet34", "test_resnet"),
    *("vgg11_bn", "vgg11_narrow", "wide_resnet50_2"),
]


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return str(tmp_path / "mine.toml")

    return write


def refusal(model):
    with pytest.raises(UsageError) as caught:
        cards.load(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_packaged_cards_are_listed_in_order():
    assert cards.names() == PACKAGED


@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_card_is_valid_promises_invariance_and_has_a_summary(name):
    card = cards.load(name)
    assert card.name == name
    assert card.expect.invariant == "bitwise"
    assert 0 < len(cards.summaries()[name]) <= 80
    assert cards.summaries()[name] == card.summary


def test_listing_imports_nothing_heavy():
    program = "import sys; from optim_family.networks import cards; cards.summaries(); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert not {"torch", "pydantic", "timm", "numpy"} & set(modules.split())


def test_a_path_is_read_as_a_card_and_takes_its_name_from_the_file(written):
    path = written('summary = "s"\nbuiltin = "bn_cnn"\nkwargs = { width = 4 }\n[adapt]\nreadout_norm = 3\n')
    assert cards.load(path) == Card(
        name="mine", summary="s", builtin="bn_cnn", kwargs={"width": 4}, adapt=Adapt(readout_norm=3.0)
    )


def test_any_timm_name_is_a_card_without_promises():
    card = cards.load("timm:resnet50")
    assert (card.name, card.timm, card.adapt) == ("timm:resnet50", "resnet50", Adapt())
    assert card.expect.invariant is None


def test_a_card_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        cards.load("bn_cnn").timm = "resnet18"


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    message = refusal("resnet81")
    assert message.startswith("there is no model 'resnet81'; did you mean 'resnet18'?")
    assert "vgg11_bn" in message and "timm:NAME" in message


def test_all_mistakes_are_told_at_once_each_with_its_place(written):
    message = refusal(
        written("""
            summary = 3
            builtin = "bn_cn"
            timm = "resnet18"
            kwarg = { width = 3 }
            [adapt]
            steem = "conv3x3"
            stem = "conv7x7"
            freeze = "fc"
            readout_norm = -1.0
            [expect]
            invariant = true
        """)
    )
    for part in (
        "a card has exactly one of timm, builtin and plugin",
        "summary: it must be a valid string, not 3",
        "no builtin 'bn_cn'; did you mean 'bn_cnn'? Known: bn_cnn, bn_mlp, resnet20, vgg11",
        "there is no field 'kwarg'; did you mean 'kwargs'?",
        "adapt: there is no field 'steem'; did you mean 'stem'?",
        "no adapt.stem 'conv7x7'; did you mean 'conv3x3'? Known: conv3x3",
        "adapt.freeze: it must be a valid tuple, not fc",
        "adapt.readout_norm: it must be positive and finite, not -1.0",
        "no expect.invariant 'True'; known: bitwise",
    ):
        assert part in message


def test_a_card_without_a_network_says_what_is_missing(written):
    message = refusal(written('adapt = "conv3x3"'))
    assert "a card has exactly one of timm, builtin and plugin" in message
    assert "summary: field required" in message
    assert "adapt: it must be a dictionary" in message


def test_broken_toml_is_answered_with_its_line(written):
    assert re.search(r"mine.toml is not valid TOML: .*line 1", refusal(written("timm = \nsummary = 1")))


def test_a_missing_file_is_answered_with_its_path(tmp_path):
    assert refusal(str(tmp_path / "none.toml")).endswith(
        "none.toml cannot be read: No such file or directory"
    )


def test_the_current_directory_is_never_searched(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text((folder("models") / "bn_cnn.toml").read_text())
    monkeypatch.chdir(tmp_path)
    assert "there is no model 'mine'" in refusal("mine")
