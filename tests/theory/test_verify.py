"""A claim of the tests.

    1 = 1

Source: nowhere, <here>.
"""

import json
import math
from typing import get_type_hints

import pytest

from optim_family.cli.output import Output
from optim_family.errors import UsageError
from optim_family.theory import cases, page
from optim_family.theory.verify import Case, NumericCheck, rows, run_case
from tests.helpers.cli_runner import optim_family


def case(name="T1", measured=1.0, observe=dict):
    def checks(seen):
        yield NumericCheck.equal("one", 1.0, measured, within=0.01)
        yield NumericCheck.vanishes("nothing", 0.0, within=1e-12)

    def watched():
        return observe()

    return Case(name, watched, checks, lambda ax, seen: ax.plot([1, 2], label="a line"))


def broken():
    raise ArithmeticError("two  and two\nare five")


# --- checks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "holds"), [(1.98, True), (2.02, True), (1.97, False), (2.03, False), (math.nan, False)]
)
def test_a_number_lies_within_its_tolerance_or_fails(measured, holds):
    assert NumericCheck.equal("x", 2.0, measured, within=0.0101).holds is holds
    assert NumericCheck.equal("x", -2.0, -measured, within=0.0101).holds is holds


@pytest.mark.parametrize(("measured", "holds"), [(1e-12, True), (-1e-12, True), (2e-12, False)])
def test_an_error_vanishes_up_to_its_tolerance(measured, holds):
    assert NumericCheck.vanishes("x", measured, within=1e-12).holds is holds


@pytest.mark.parametrize(
    ("check", "demand"),
    [
        (NumericCheck.equal("x", 1.3069, 1.3, within=0.01), ("1.3069", "1 %")),
        (NumericCheck.equal("x", 38.0, 38.0, within=1e-3), ("38", "0.1 %")),
        (NumericCheck.equal("x", 2.0, 2.0, within=1e-9), ("2", "2e-09")),
        (NumericCheck.vanishes("x", 0.0, within=1e-12), ("0", "1e-12")),
        (NumericCheck("x", 1.0, 0.9, 1.15), ("0.9 to 1.15", "")),
        (NumericCheck("x", 1.0, 0.5, math.inf), ("at least 0.5", "")),
        (NumericCheck("x", 1.0, -math.inf, 0.5), ("at most 0.5", "")),
    ],
)
def test_what_is_demanded_is_said_with_its_tolerance(check, demand):
    assert check.demand == demand


# --- cases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.MODULES)
def test_every_case_is_stated(name):
    """A claim that fits into a line, mathematics, and a source."""
    loaded = cases.load(name)
    assert loaded.name == name
    assert 20 < len(loaded.claim) < 110 and "\n" not in loaded.claim
    assert loaded.statement and loaded.source and not loaded.source.startswith("Source")


@pytest.mark.parametrize("name", cases.MODULES)
def test_checks_and_figure_take_the_evidence_of_their_case(name):
    """mypy cannot see what `load` puts together."""
    loaded = cases.load(name)
    evidence = get_type_hints(loaded.observe)["return"]
    for function in (loaded.checks, loaded.draw):
        hints = list(get_type_hints(function).items())
        assert [kind for argument, kind in hints if argument != "return"][-1] == evidence


def test_the_statement_of_a_case_is_the_docstring_of_its_module():
    assert case().claim == "A claim of the tests"
    assert case().statement == "    1 = 1"
    assert case().source == "nowhere, <here>."


def test_slow_cases_are_selected_on_request_only():
    names = list(cases.MODULES)
    assert [c.name for c in cases.select(None)] == [name for name in names if name not in cases.SLOW]
    assert [c.name for c in cases.select(None, slow=True)] == names
    assert [c.name for c in cases.select("V12")] == ["V12"]
    assert [c.name for c in cases.select(" v6, V5,V6")] == ["V6", "V5"]


@pytest.mark.parametrize("only", ["V99", "", "V5,,V6", "V5 V6"])
def test_a_case_that_does_not_exist_is_named(only):
    with pytest.raises(UsageError, match="there is no case"):
        cases.select(only)


# --- results ---------------------------------------------------------------------------------------------


def test_a_case_holds_if_all_its_checks_hold():
    result = run_case(case())
    assert result.holds and result.evidence == {} and result.failure == ""
    assert not run_case(case(measured=1.02)).holds


def test_a_case_without_checks_does_not_hold():
    assert not run_case(Case("T1", dict, lambda seen: [], lambda ax, seen: None)).holds


def test_a_case_that_raises_fails_and_says_why():
    result = run_case(case(observe=broken))
    assert not result.holds and result.checks == ()
    assert result.failure == "ArithmeticError: two and two are five"
    assert rows([result])[0][:2] == ["T1", "A claim of the tests: ArithmeticError: two and two are five"]


def test_a_result_is_json_even_with_nan():
    result = run_case(case(measured=math.nan))
    record = json.loads(json.dumps(result.as_record(), allow_nan=False))
    assert record["name"] == "T1" and record["source"] == "nowhere, <here>." and record["holds"] is False
    assert record["findings"][0] == {
        "quantity": "one",
        "expected": 1.0,
        "measured": None,
        "low": 0.99,
        "high": 1.01,
        "holds": False,
    }


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def these(monkeypatch):
    """Two cases instead of those of the theory."""

    def choose(*selected):
        monkeypatch.setattr(cases, "select", lambda only, slow: list(selected))

    choose(case("T1"), case("T2"))
    return choose


def test_the_table_has_a_line_for_each_check(these, capsys):
    answer = optim_family(capsys, "verify")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert lines[0] == ["case", "claim", "expected", "measured", "tolerance", "s"]
    assert lines[2] == ["one", "1", "1", "1", "%", "holds"]
    assert [line.split(",")[0] for line in answer.err.splitlines()] == ["T1 holds", "T2 holds"]


def test_one_check_that_fails_is_exit_code_1(these, capsys):
    these(case("T1"), case("T2", measured=1.5))
    answer = optim_family(capsys, "verify", "-q")
    assert answer.code == 1
    assert answer.out.count("fails") == 1 and answer.err == ""


def test_a_case_that_fails_stops_no_other(these, capsys):
    these(case("T1", observe=broken), case("T2"))
    answer = optim_family(capsys, "verify", "--json")
    assert answer.code == 1
    assert [c["holds"] for c in json.loads(answer.out)["cases"]] == [False, True]


def test_a_case_that_does_not_exist_is_a_mistake_of_the_user(capsys):
    answer = optim_family(capsys, "verify", "--only", "V55")
    assert answer.code == 2 and answer.out == ""
    assert answer.err.startswith("optim-family: there is no case 'V55'; did you mean 'V5'?")


def test_the_report_is_one_page_with_the_figures_beside_it(these, capsys, tmp_path):
    these(case("T1"), case("T2", observe=broken))
    answer = optim_family(capsys, "verify", "--report", tmp_path / "new", "--json")
    html = (tmp_path / "new" / "index.html").read_text(encoding="utf-8")
    assert json.loads(answer.out)["page"] == str(tmp_path / "new" / "index.html")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["T1.png", "T1.svg", "index.html", "verify.json"]
    kept = json.loads((tmp_path / "new" / "verify.json").read_text(encoding="utf-8"))
    assert kept | {"page": str(tmp_path / "new" / "index.html")} == json.loads(answer.out)
    assert kept["versions"]["torch"] and kept["threads"] >= 1
    assert html.count("<svg ") == 1 and "two and two are five" in html
    assert "nowhere, &lt;here&gt;." in html
    assert "src=" not in html and "://" not in html.replace("http://www.w3.org/", "")


def test_a_report_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UsageError, match=r"inside cannot be written \(Not a directory\); choose another folder"
    ):
        page.write([run_case(case())], tmp_path / "file" / "inside")


def test_the_command_is_quiet_about_what_it_was_not_asked(capsys):
    from optim_family.cli.commands.verify import _run

    output = Output()
    output.quiet = True
    assert _run(case(), output).holds
    assert capsys.readouterr() == ("", "")
