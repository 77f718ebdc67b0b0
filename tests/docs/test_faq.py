"""What the page of questions shows, runs; its numbers are those of the stored results."""

import json
import re
import subprocess

import pandas as pd
import pytest

from optim_family.errors import Stopped
from tests.helpers import ROOT

TEXT = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
LAYERS, SECONDS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
(SCRIPT,) = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
RESULTS = ROOT / "results"


def row(model, data):
    """Seconds and products of a row of the table."""
    return [
        float(number)
        for number in re.search(rf"\| `{model}`.*\| {data}.* \| ([\d.]+), ([\d.]+)", TEXT).groups()
    ]


def test_each_layer_along_training():
    names = {}
    exec(compile(LAYERS, "faq.md", "exec"), names)
    assert [record.keys() for record in names["history"]] == [{"0", "2"}] * 2
    assert all(value > 0 for record in names["history"] for value in record.values())


def test_the_seconds_are_those_of_the_stored_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(SECONDS, "faq.md", "exec"), {})
    printed = re.findall(r"(\d000)\s+([\d.]+)\s+([\d.]+)$", capsys.readouterr().out, flags=re.MULTILINE)
    for (limit, *numbers), data in zip(printed, ("2,000", "5,000"), strict=True):
        assert data == f"{int(limit):,}" and row("vgg11_narrow", data) == pytest.approx(
            [*map(float, numbers)], abs=0.5
        )
    digits = pd.read_csv(RESULTS / "studies" / "digits" / "readings.csv").query("view == 'spherical'")
    seconds, products = row("bn_cnn", "200")
    assert (
        digits.seconds.median() / 3 < seconds < 3 * digits.seconds.median()
    )  # the load varies between executions
    assert products == pytest.approx(digits.products.median(), rel=0.1)
    (run,) = json.loads((RESULTS / "first-light" / "sentence" / "comparison.json").read_text())
    view = run["summary"]["views"]["spherical"]
    expected = [view["seconds"] / view["readings"], view["products"] / view["readings"]]
    assert row("resnet18", "100") == pytest.approx(expected, abs=0.05)


def test_the_memory_is_that_of_the_benchmark():
    stored = (RESULTS / "benchmarks" / "memory.txt").read_text(encoding="utf-8")
    assert all(f"ratio {ratio}" in stored and ratio in TEXT for ratio in ("1.00", "3.05"))


def test_the_script_is_bash_and_knows_the_exit_code():
    assert subprocess.run(["bash", "-n"], input=SCRIPT, text=True).returncode == 0
    assert f"$code = {Stopped.exit_code} ]" in SCRIPT and "--resume" in SCRIPT
