import base64
import html
import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.figure
import numpy as np
import pandas
import pytest

from optim_family.analysis import claims, paired_differences, run_summary, study_results, study_table
from optim_family.analysis.claims import CLAIMS
from optim_family.analysis.study_results import (
    Cell,
    Column,
    Table,
    _cell,
    _number,
    evaluate_study,
)
from optim_family.runs import readings_table
from optim_family.runs.run import series, with_test_set
from optim_family.study import report
from optim_family.study.spec import StudySpec
from optim_family.training.spec import RunSpec
from tests.helpers.fake_runs import holding, make_run, with_along, with_batches

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "img", "input"}


def make_study(runs, name="mine", question="Is a < b?", missing=0):
    specs = [RunSpec.model_validate(run.spec) for run in runs]
    more = [RunSpec(optimizer="gd", hyper={}, seed=99 + i) for i in range(missing)]
    return StudySpec(name, question, CLAIMS, (*specs, *more), f"question = {question!r}  # the file")


RUNS = [
    make_run(
        optimizer, {"weight_decay": decay}, seed=seed, records=12, path=f"runs/{optimizer}-{decay}-{seed}"
    )
    for optimizer, decay in (("gd", 0.005), ("gd", 0.0), ("rmsprop", 0.05))
    for seed in range(3)
]
RUNS[-1].status["status"] = "diverged"


def sketch(runs, title=None, names=None, ends=None):
    """What is drawn much faster than a figure of runs."""
    figure = matplotlib.figure.Figure(figsize=(2, 1))
    figure.add_subplot().set_title(title or runs[0].path.name)
    return figure


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report.run_figure, "figure", sketch)
        page = report.write(make_study(RUNS, missing=2), evaluate_study(CLAIMS, RUNS), folder)
    assert page == folder / "report.html"
    return folder


class Checker(HTMLParser):
    """Remembers ids, links and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if "download" in attributes:
            self.links[attributes["download"]] = attributes["href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_everything_is_written(written):
    figures = {f"{stem}.{form}" for stem in ("sharpness", "accuracy", "overlay-1") for form in ("svg", "png")}
    tables = {f"{name}.csv" for name in ("summary", "groups", "differences", "readings")}
    assert {path.name for path in written.iterdir()} == figures | tables | {
        "report.html",
        "summary.md",
        "provenance.json",
    }


def test_every_table_is_computed_once(monkeypatch, tmp_path):
    calls = Counter()

    def count(module, name):
        original = getattr(module, name)

        def counted(*args):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(module, name, counted)

    monkeypatch.setattr(report.run_figure, "figure", sketch)
    for module, name in [
        (run_summary, "summary"),
        (study_table, "run_rows"),
        (study_table, "seed_groups"),
        (paired_differences, "comparisons"),
        (claims, "evaluate_claims"),
        (study_results, "_group_table"),
        (study_results, "_difference"),
        (readings_table, "readings"),
    ]:
        count(module, name)
    results = evaluate_study(CLAIMS, RUNS)
    report.write(make_study(RUNS), results, tmp_path)
    once = dict.fromkeys(("run_rows", "seed_groups", "comparisons", "evaluate_claims", "readings"), 1)
    tables = {"_group_table": len(results.group_tables), "_difference": len(results.differences)}
    assert calls == once | tables | {"summary": len(RUNS)}


def test_the_page_is_whole(written):
    page = Checker((written / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 3
    assert page.tags.count("details") >= len(RUNS) + len(CLAIMS)


def test_the_page_says_everything(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "Is a &lt; b?" in text and "11 runs: 8 done, 1 diverged, 2 not begun" in text
    for claim in CLAIMS.values():
        assert claim.statement in text
    rows = evaluate_study(CLAIMS, RUNS).rows.to_dict("records")
    for run, row in zip(RUNS, rows, strict=True):
        assert f"&#34;seed&#34;: {run.spec['seed']}" in text
        assert html.escape(f"{row['arm']}; {row['setting']}; seed {run.spec['seed']}") in text
    assert "# the file" in text


def test_provenance_is_that_of_every_run():
    known = [{"versions": {"torch": str(i)}} for i in range(len(RUNS))]
    runs = [replace(run, provenance=one) for run, one in zip(RUNS, known, strict=True)]
    expected = {r.path.name: {"spec": r.spec, "versions": r.provenance["versions"]} for r in runs}
    assert report._provenance(runs) == expected


def test_a_bar_in_a_cell_is_no_column_of_markdown():
    text = report._markdown_table(Table("", ["a|b", "c"], [[Cell("x|y"), Cell("z")]]))
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()] == [3, 3, 3]


def test_the_data_are_inside_the_page(written):
    page = Checker((written / "report.html").read_text(encoding="utf-8"))
    assert set(page.links) == {
        f"mine-{name}.csv" for name in ("summary", "groups", "differences", "readings")
    }
    for name, uri in page.links.items():
        held = base64.b64decode(uri.partition("base64,")[2])
        assert held == (written / name.removeprefix("mine-")).read_bytes()
    assert len(pandas.read_csv(written / "summary.csv")) == len(RUNS)
    assert len(pandas.read_csv(written / "readings.csv")) == 12 * (6 + 2 * 3)


def test_the_same_runs_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        report.write(make_study(RUNS[:1]), evaluate_study(CLAIMS, RUNS[:1]), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_the_markdown_has_a_row_for_each_group(written):
    text = (written / "summary.md").read_text(encoding="utf-8")
    for table in evaluate_study(CLAIMS, RUNS).group_tables:
        (section,) = re.findall(rf"## {re.escape(table.heading)}\n\n(.*?)(?:\n\n|\Z)", text, re.DOTALL)
        lines = section.strip().splitlines()
        assert len(lines) == 2 + 3 and {line.count("|") for line in lines} == {len(table.headers) + 1}


def test_provenance_names_every_run(written):
    provenance = json.loads((written / "provenance.json").read_text(encoding="utf-8"))
    assert set(provenance) == {run.path.name for run in RUNS}


def test_a_cell_is_mean_and_spread_and_says_when_some_are_missing():
    results = evaluate_study({}, RUNS)
    training = results.group_tables[0]
    row = results.groups.iloc[0]
    cell = training.rows[0][training.headers.index("at the end, %")]
    mean, sd = row["test_accuracy.mean"], row["test_accuracy.sd"]
    assert cell.text == f"{100 * mean:.1f} ± {100 * sd:.1f}" and cell.value == repr(float(mean))
    course = results.group_tables[1]
    slope = course.rows[1][course.headers.index("d log S / dτ")]
    assert (slope.text, slope.value) == ("–", "")


def test_a_cell_says_when_some_runs_have_no_number():
    row = {"x.mean": 0.25, "x.sd": math.nan, "x.n": 1, "runs": 3}
    assert _cell(row, Column("", "x", ".1f", 100)).text == "25.0 (n = 1)"
    assert _cell(row | {"x.n": 0}, Column("", "x", ".1f")) == Cell("–")


def test_columns_without_a_single_number_are_left_out():
    assert "at the midpoint" not in evaluate_study({}, RUNS).group_tables[0].headers
    run = make_run(records=9)
    for record in run.records:
        record["views"]["spherical-midpoint"] = {**record["views"]["spherical"], "ratio": 1.03}
    table = evaluate_study({}, [run]).group_tables[0]
    assert table.rows[0][table.headers.index("at the midpoint")].text == "1.03"


def test_measurements_along_updates_are_a_table_where_they_were_recorded():
    heading = "Along the last update before each record, medians after 100 % training accuracy"
    assert heading not in [table.heading for table in evaluate_study({}, RUNS).group_tables]
    run = with_along(with_batches(make_run(hyper={"momentum": 0.9}, records=9)))
    tables = {table.heading: table for table in evaluate_study({}, [run]).group_tables}
    cells = dict(zip(tables[heading].headers, (cell.text for cell in tables[heading].rows[0]), strict=True))
    assert cells["critical sharpness / (2/η)"] == "0.95" and cells["rotation per step, radians"] == "0.025"
    (first, *_) = tables.values()
    assert first.rows[0][first.headers.index("the same / plateau of small batches")].text == "5.70"


def test_a_spread_has_no_more_digits_than_it_deserves():
    row = {"x.mean": 1448.2, "x.sd": 8.215, "x.n": 3, "runs": 3}
    assert _cell(row, Column("", "x", ".4g")).text == "1,448 ± 8.2"
    assert _cell(row | {"x.sd": 170.7}, Column("", "x", ".4g")).text == "1,448 ± 171"
    assert _cell(row | {"x.mean": 1.5, "x.sd": 0.25}, Column("", "x", "+.1f")).text == "+1.5 ± 0.2"


def test_numbers_are_written_as_people_write_them():
    assert [_number(x, ".4g") for x in (17490.0, 466.06, -8.255, 2e9, 1e-5)] == [
        "17,490",
        "466.1",
        "−8.255",
        "2e+09",
        "1e-05",
    ]


def test_differences_say_whether_they_are_beyond_noise():
    table = evaluate_study({}, RUNS).difference_table
    last = {row[-1].text for row in table.rows}
    assert last <= {"yes", "no", "too few pairs"} and "yes" in last
    assert all(len(row) == len(table.headers) for row in table.rows)


def test_differences_that_cannot_be_judged_are_not_listed():
    table = evaluate_study({}, [run for run in RUNS if run.spec["seed"] == 0]).difference_table
    assert table.rows == [] and "all 6 have fewer than 3 seeds" in table.heading
    assert evaluate_study({}, RUNS[:1]).difference_table.heading.startswith("Differences: no two arms have")


def test_names_that_contain_markup_are_only_text(tmp_path):
    runs = [make_run(model=EVIL, records=1, path=f"runs/{EVIL.replace('/', '|')}", data=f"npz:{EVIL}")]
    runs[0].provenance["versions"] = {"python": EVIL}
    page = report.write(make_study(runs, name=EVIL, question=EVIL), evaluate_study(CLAIMS, runs), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 4 and EVIL not in text and "&lt;script&gt;alert" in text
    assert Checker(text).open == []


def test_a_study_that_has_hardly_begun_has_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(report.run_figure, "figure", sketch)
    run = make_run(records=1, status="running")
    page = report.write(make_study([run]), evaluate_study(CLAIMS, [run]), tmp_path)
    assert "1 runs: 1 running" in page.read_text(encoding="utf-8")


def test_a_long_table_lies_beside_the_page_only(tmp_path, monkeypatch):
    monkeypatch.setattr(report.run_figure, "figure", sketch)
    monkeypatch.setattr(report, "_INLINE", 5000)
    page = report.write(make_study(RUNS), evaluate_study(CLAIMS, RUNS), tmp_path)
    links = Checker(text := page.read_text(encoding="utf-8")).links
    assert "mine-summary.csv" in links and "mine-readings.csv" not in links
    assert "readings.csv, every reading" in text and (tmp_path / "readings.csv").exists()


def test_of_very_many_runs_the_static_figures_lie_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report.run_figure, "figure", sketch)
    monkeypatch.setattr(report, "_DRAWN", len(RUNS) - 1)
    monkeypatch.setattr(report, "_SETTINGS", 0)
    page = report.write(make_study(RUNS), evaluate_study(CLAIMS, RUNS), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<figure>" not in text and "too many for figures" in text
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"sharpness", "accuracy"}


def test_a_subject_of_a_claim_that_is_a_group_of_runs_filters_the_page(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    groups = evaluate_study(CLAIMS, RUNS).groups
    for row in groups[["arm", "setting"]].to_dict("records"):
        assert f'data-filter="{row["arm"]}; {row["setting"]}"' in text


def test_the_overlay_shows_one_seed_with_weight_decay(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        report.run_figure, "figure", lambda runs, title, names, ends: drawn.append((runs, names))
    )
    dict(report.figures(evaluate_study({}, RUNS)))
    runs, names = drawn[0]
    assert [(run.spec["optimizer"], run.spec["seed"]) for run in runs] == [("gd", 0), ("rmsprop", 0)]
    assert names == ["gd lr 0.2, wd 0.005", "rmsprop lr 0.01, wd 0.05"]


def test_the_overlay_shows_all_where_one_alone_has_weight_decay(monkeypatch):
    drawn = []
    monkeypatch.setattr(report.run_figure, "figure", lambda runs, title, names, ends: drawn.append(names))
    dict(report.figures(evaluate_study({}, [run for run in RUNS if run.spec["optimizer"] == "gd"])))
    assert drawn == [["gd lr 0.2, wd 0.005", "gd lr 0.2, wd 0"]]


def test_the_overlay_shows_medians_where_every_arm_has_three_seeds(monkeypatch):
    drawn = []
    monkeypatch.setattr(report.run_figure, "figure", lambda runs, **options: drawn.append((runs, options)))
    runs = [make_run(seed=seed) for seed in range(3)]
    dict(report.figures(evaluate_study({}, runs)))
    ((medians, options),) = drawn
    losses = [series(run, "train_loss") for run in runs]
    assert len(medians) == 1 and (series(medians[0], "train_loss") == np.median(losses, axis=0)).all()
    low, high = options["ends"][0]
    assert (series(low, "train_loss") == np.min(losses, axis=0)).all()
    assert (series(high, "train_loss") == np.max(losses, axis=0)).all()
    assert options["title"].endswith("optimizers, median and range of 3 seeds")


def test_a_study_may_judge_a_further_test_set(tmp_path):
    runs = [
        holding(run, [{**r, "test_accuracy_shifted": 0.125 + r["step"] * 1e-6} for r in run.records])
        for run in (make_run(seed=seed, records=9) for seed in range(2))
    ]
    study = replace(make_study(runs), test_set="shifted")
    results = evaluate_study({}, [with_test_set(run, "shifted") for run in runs])
    report.write(study, results, tmp_path)
    summary = pandas.read_csv(tmp_path / "summary.csv")
    assert summary["test_accuracy"].round(3).tolist() == [0.125, 0.125]
    assert "test images: x_test_shifted" in (tmp_path / "summary.md").read_text()
    readings = pandas.read_csv(tmp_path / "readings.csv")  # as recorded, under their own names
    assert readings["test_accuracy_shifted"].round(3).eq(0.125).all()
    expected = [x for run in runs for x in series(run, "test_accuracy")]
    assert np.allclose(
        readings["test_accuracy"].drop_duplicates(), pandas.Series(expected).drop_duplicates(), rtol=1e-4
    )
