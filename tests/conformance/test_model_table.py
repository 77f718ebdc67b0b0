"""The page of a sweep."""

from optim_family.conformance.model_rows import read_rows
from optim_family.conformance.model_table import cells, page, summary
from tests.helpers import ROOT

RIGHT = {
    "model": "torch/rnn",
    "parameters": 1234,
    "value": 2.0,
    "by differences": 2.0001,
    "check": "passed",
    "changed": [],
    "versions": {"torch": "2.10", "timm": "1.0"},
}
WRONG = RIGHT | {"model": "a/wrong", "by differences": 3.0, "versions": {"torch": "2.11"}}
CHANGED = RIGHT | {"model": "a/changed", "changed": ["mean", "var"]}
UNSURE = RIGHT | {"model": "a/unsure", "by differences": None, "spread": None}
REFUSED = {"model": "a/refused", "refused": "ValueError: a|b"}


def test_the_stored_page_is_that_of_the_stored_rows():
    folder = ROOT / "results" / "models"
    assert page(list(read_rows(folder).values()), 0, []) == (folder / "sweep.md").read_text(encoding="utf-8")


def test_a_row_stands_with_its_verdict_or_its_reason():
    lines = page([RIGHT, WRONG, CHANGED, UNSURE, REFUSED], 0, ["transformers"]).splitlines()
    assert "| torch/rnn | 1,234 | 2 | 2.0001 | agrees | passed | – |" in lines
    assert "| a/wrong | 1,234 | 2 | 3 | differs | passed | – |" in lines
    assert "| a/changed | 1,234 | 2 | 2.0001 | changed | passed | mean, var |" in lines
    assert "| a/unsure | 1,234 | 2 | – | cannot tell | passed | – |" in lines
    assert "| a/refused | ValueError: a/b |" in lines
    assert "| transformers: all models | not installed |" in lines


def test_the_summary_counts_every_verdict():
    text = summary([RIGHT, WRONG, CHANGED, UNSURE, REFUSED], 3)
    assert text == (
        "4 of 5 models are measured; the two numbers differ by 5e-05 in the median, 3e-01 at most. Verdicts: "
        "agrees 1, differs 1, changed 1, cannot tell 1, not measured 1. 3 more are still to be measured: "
        "repeat the command. Versions: timm 1.0, torch 2.10 and 2.11."
    )


def test_a_page_without_numbers_has_no_empty_table():
    assert page([], 2, []).count("|") == 0
    assert page([REFUSED], 0, []).count("by differences |") == 0


def test_the_cells_of_a_model_without_numbers_end_with_the_reason():
    assert cells(REFUSED) == ["a/refused", "–", "–", "–", "not measured: ValueError: a|b"]
