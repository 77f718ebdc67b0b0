"""Data sets of an installed distribution, and their defects."""

import pytest

from optim_family.data import datasets
from optim_family.errors import CorruptError, PluginError, UsageError
from tests.helpers.cli_runner import optim_family
from tests.helpers.shapes_plugin import SOURCE


def test_a_model_and_a_data_set_are_used_by_their_names(shapes_plugin, capsys, tmp_path):
    shapes_plugin()
    words = "--optimizer", "gd", "--model", "tiny", "--data", "stripes", "--steps", "2", "--every", "1"
    answer = optim_family(capsys, "run", *words, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    assert datasets.load("stripes").class_names == ("lying", "up")


def test_listing_data_sets_imports_nothing(shapes_plugin, capsys):
    shapes_plugin("raise RuntimeError('imported')")
    assert "stripes of shapes 2.0" in optim_family(capsys, "data").err


def test_a_packaged_name_is_not_taken_over(shapes_plugin):
    shapes_plugin(images="digits")
    assert datasets.load("digits").classes == 10 and "digits" not in datasets.registered_datasets()


def test_what_a_data_set_prints_goes_to_stderr(shapes_plugin, capsys):
    shapes_plugin(SOURCE.replace("x = np", "print('l'); x = np"))
    datasets.load("stripes")
    assert capsys.readouterr() == ("", "l\n")


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
            "int",
            CorruptError,
            "stripes of shapes 2.0: x_train is int64; images must be uint8",
        ),
    ],
)
def test_a_broken_data_set_is_an_error_with_its_name(shapes_plugin, old, new, kind, says):
    shapes_plugin(SOURCE.replace(old, new, 1))
    with pytest.raises(kind, match=says):
        datasets.load("stripes")


def test_an_unknown_name_gets_the_nearest_one(shapes_plugin):
    shapes_plugin()
    with pytest.raises(UsageError, match="no data set 'stripe'; did you mean 'stripes'"):
        datasets.load("stripe")
