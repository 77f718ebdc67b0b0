"""From `--lr` to the step, `run` loads the optimizer's class once and validates its hyper-parameters once."""

import sys

import pytest

from optim_family import registry
from tests.helpers.broken_plugin import GOOD, broken
from tests.helpers.cli_runner import optim_family

COUNTED = """
from pydantic import model_validator
validated = []

class Hyper(HyperParameters):
    @model_validator(mode="after")
    def count(self):
        validated.append(self.lr)
        return self
"""


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_the_class_is_loaded_and_the_values_are_validated_once(
    broken_plugin, capsys, tmp_path, monkeypatch, more
):
    broken_plugin(broken(GOOD, "\nclass Hyper(HyperParameters):\n", COUNTED))
    loaded, load = [], registry._registered_object
    monkeypatch.setattr(
        registry, "_registered_object", lambda entry: loaded.append(entry.name) or load(entry)
    )
    tiny = "--limit", "20", "--steps", "2", "--every", "1", "--device", "cpu", "--quiet"
    answer = optim_family(
        capsys, "run", "--optimizer", "plain", "--lr", "0.2", *tiny, "--out", tmp_path / "run", *more
    )
    assert answer.code == 0, answer.err
    assert loaded == ["plain"]
    assert sys.modules["test_plugin_module"].validated == [0.2]
