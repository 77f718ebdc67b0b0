"""The interactive page in a real browser."""

import json
import re
from urllib.parse import quote

import pytest

from optim_family.analysis import run_summary
from optim_family.figures.run_figure import figure
from optim_family.figures.run_page import run_page
from tests.helpers.browser import browser as start_browser
from tests.helpers.fake_runs import holding, in_norm, make_run, with_along, with_batches

EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
FULL = [
    make_run("gd", {"weight_decay": 0.005}, seed=seed, records=30, path=f"runs/{seed}") for seed in range(3)
]
OTHER = make_run("rmsprop", records=30, path="runs/rmsprop")


def written(folder, runs, name="page.html"):
    page = folder / name
    summaries = [run_summary.summary(run) for run in runs]
    figures = [("All runs", figure([run for run in runs if run.columns.count]))]
    page.write_text(run_page(runs, summaries, title="runs", figures=figures), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return written(tmp_path_factory.mktemp("page"), [*FULL, OTHER])


@pytest.fixture(scope="module")
def browser():
    with start_browser() as opened:
        yield opened


def legend(browser, text):
    (button,) = [b for b in browser.driver.find_elements("css selector", "#legend button") if text in b.text]
    return button


def test_the_page_draws_four_panels_without_a_request_or_a_message(browser, page):
    browser.open(page)
    assert browser.messages() == [] and browser.requests() == []
    for panel in ("loss", "accuracy", "sharpness", "ratio"):
        assert len(browser.curves(panel)) >= 2
        label = browser.js(f"return document.getElementById('panel-{panel}').ariaLabel")
        assert "2 curves" in label


def test_hovering_shows_the_numbers_of_the_record(browser, page):
    browser.open(page, "#open=g0")
    record = FULL[0].records[20]
    point = [(x, y) for x, y in zip(*browser.curves("sharpness")[0].values(), strict=True)].index(
        (record["step"], pytest.approx(record["views"]["spherical"]["value"], rel=1e-5))
    )
    (text, *_) = [tip for tip in browser.hover("sharpness", point) if "seed 0" in tip]
    shown = dict(re.findall(r"^(\w+) (.*)$", text, flags=re.MULTILINE))
    reading = record["views"]["spherical"]
    assert shown["step"].startswith(f"{record['step']}, τ {record['tau']:.4g}")
    value, error = map(float, shown["spherical"].split(" ± "))
    assert value == pytest.approx(reading["value"], rel=1e-5)
    assert error == pytest.approx(reading["error"], rel=0.05)
    assert float(shown["bound"].removeprefix("at most ")) == pytest.approx(
        reading["value"] + reading["bound"], rel=1e-4
    )
    threshold, ratio = map(float, shown["threshold"].split(", ratio "))
    assert (threshold, ratio) == pytest.approx((reading["threshold"], reading["ratio"]), rel=1e-5)
    assert shown["products"].split(",")[0] == str(reading["products"])


def test_seeds_are_median_and_range_and_open_into_their_runs(browser, page):
    browser.open(page)
    band = browser.curves("ratio")[0]
    records = [run.records[12]["views"]["spherical"]["ratio"] for run in FULL]
    assert band["y"][band["x"].index(120)] == pytest.approx(sorted(records)[1], rel=1e-5)
    before = len(browser.curves("ratio"))
    legend(browser, "3 runs").click()
    browser.drawn()
    assert len(browser.curves("ratio")) == before + 2
    assert legend(browser, "seed 2").get_attribute("aria-pressed") == "true"


def test_a_click_in_the_legend_hides_a_run_in_every_panel(browser, page):
    browser.open(page)
    panels = ("loss", "accuracy", "sharpness", "ratio")
    before = {panel: len(browser.curves(panel)) for panel in panels}
    legend(browser, "rmsprop").click()
    browser.drawn()
    for panel in panels:
        assert 0 < len(browser.curves(panel)) < before[panel], panel
    assert "hide=g1" in browser.driver.current_url
    assert legend(browser, "rmsprop").get_attribute("aria-pressed") == "false"


def test_the_address_restores_a_view(browser, page):
    browser.open(page, "#x=tau&log=0&clip=1&predictions=1&hide=g1&open=g0&range=0.05+0.2")
    form = browser.js(
        "return Object.fromEntries([...controls.elements].map((e) => [e.name, e.checked ?? e.value]))"
    )
    assert form["log"] is False and form["clip"] is True and form["predictions"] is True
    assert browser.js("return controls.elements.x.value") == "tau"
    view = "[...figure.views()].find((view) => view.model.name === 'sharpness').model"
    assert browser.js(f"return [{view}.x_range.start, {view}.x_range.end]") == [0.05, 0.2]
    assert browser.js(f"return {view}.y_scale.type") == "LinearScale"
    thresholds = [record["views"]["spherical"]["threshold"] for run in FULL for record in run.records]
    assert browser.js(f"return {view}.y_range.end") <= 1.1 * 3 * max(thresholds)
    assert "range=0.05+0.2" in browser.driver.current_url
    browser.driver.find_element("id", "all").click()
    browser.drawn()
    assert browser.driver.current_url.endswith("#")


def test_the_axis_ends_at_three_thresholds_whatever_step_0_has(browser, tmp_path):
    run = make_run(records=12)
    for record, value in zip(run.records, (9e9, *[5e3] * 11), strict=True):
        record["views"]["spherical"] |= {"value": value, "threshold": 1e6 if value > 1e6 else 1e3}
    page = written(tmp_path, [run])
    ends = []
    for address in ("#clip=1&log=0", "#log=0"):
        browser.open(page, address)
        view = "[...figure.views()].find((view) => view.model.name === 'sharpness').model"
        ends.append(browser.js(f"return {view}.y_range.end"))
    assert ends[0] == pytest.approx(3e3, rel=0.1) and ends[1] > 5e3


def test_the_filter_and_the_columns_of_a_table(browser, page):
    browser.open(page, f"#filter={quote('rmsprop')}")
    shown = "return [...document.querySelectorAll(arguments[0])].filter((e) => !e.hidden).length"
    assert browser.js(shown, "table.sortable tbody tr") == 1
    assert browser.js(shown, "details.card") == 1 and browser.js(shown, ".strip [data-key]") == 1
    browser.js("document.querySelector('.tools input').click()")
    text = browser.js("return asMarkdown(document.querySelector('table.sortable'))")
    header, rule, *rows = text.splitlines()
    assert "run" not in header.split("|")[1] and set(rule) == set("| -") and len(rows) == 1
    latex = browser.js("return asLatex(document.querySelector('table.sortable'))")
    assert latex.startswith("\\begin{tabular}") and "100 \\% training accuracy" in latex


def test_arrow_keys_read_out_the_records(browser, page):
    browser.open(page, "#open=g0")
    panel = browser.driver.find_element("id", "panel-ratio")
    for _ in range(3):
        panel.send_keys("\ue014")  # the right arrow
    note = browser.js("return document.getElementById('note').textContent")
    ratio = FULL[1].records[2]["views"]["spherical"]["ratio"]
    assert "step 20." in note and f"seed 1: {ratio:.4g}" in note


def test_a_dot_at_the_edge_leads_to_the_card_of_its_run(browser, page):
    browser.open(page)
    browser.js("document.querySelectorAll('a.dot')[1].click()")
    assert browser.js("return document.getElementById('run-1').open")
    assert browser.js("return document.activeElement.closest('details').id") == "run-1"
    text = browser.js("return document.querySelector('#run-1 .command pre').textContent")
    assert text.startswith("optim-family run --optimizer gd") and "--seed 1" in text


def test_markup_in_a_run_is_text(browser, tmp_path):
    run = make_run(model=EVIL, data=f"npz:{EVIL}", records=8, path="runs/</script><b>")
    run.spec["hyper"][EVIL] = EVIL
    run.provenance["versions"] = {"python": EVIL}
    browser.open(written(tmp_path, [run, OTHER]))
    assert browser.js("return document.title") == "runs"
    assert browser.js("return document.querySelectorAll('img, b script').length") == 0
    assert any(EVIL in tip for tip in browser.hover("loss", 3))
    assert browser.messages() == []


def test_broken_and_half_written_runs_are_drawn(browser, tmp_path):
    none = make_run(records=0, status="running", path="runs/none")
    bare = holding(
        make_run(records=5, path="runs/bare", status="diverged", seed=7), make_run(records=5).records
    )
    for record in bare.records:
        record["views"] = {"spherical": None}
        record["train_loss"] = None
    browser.open(written(tmp_path, [none, bare, *FULL]))
    assert browser.messages() == []
    assert len(browser.curves("sharpness")) >= 1
    assert "training diverged" in browser.js("return document.getElementById('run-1').textContent")
    assert "not finished" in browser.js("return document.getElementById('run-0').textContent")


def test_print_has_the_static_figures_and_not_the_interactive_one(browser, page):
    browser.open(page)
    visible = "return document.querySelector(arguments[0]).checkVisibility()"
    assert not browser.js(visible, "figure svg") and browser.js(visible, ".panels")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.js("dispatchEvent(new Event('beforeprint'))")
    try:
        assert browser.js(visible, "figure svg") and not browser.js(visible, ".panels")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_narrow_page_is_not_wider_than_the_window(browser, page):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(page)
        assert browser.js("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_figure_without_javascript_is_static(page):
    text = page.read_text(encoding="utf-8")
    assert (
        "html:not(.js) .interactive { display: none; }" in text
        and '<details class="static printed" open>' in text
    )
    data = json.loads(
        re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[0]
    )
    assert len(data["runs"]) == 4


def test_both_plateaus_and_the_updates_are_on_the_page(browser, tmp_path):
    run = with_along(with_batches(make_run(hyper={"momentum": 0.9}, records=20)))
    page = written(tmp_path, [run, in_norm(make_run(records=20, path="runs/b"))])
    browser.open(page, "#batch=1&hide=g1")
    assert browser.messages() == []
    last = run.records[-1]["views"]["spherical-batch"]
    ends = [curve["y"][-1] for curve in browser.curves("sharpness")]
    expected = [last[name] for name in ("value", "threshold", "small_batch_threshold")]
    assert ends[:3] == pytest.approx(expected, rel=1e-5)
    assert [c["y"][-1] for c in browser.curves("ratio")][:2] == pytest.approx([0.3, 0.1 / 1.9], rel=1e-5)
    assert browser.curves("along")[0]["y"][-1] == pytest.approx(run.records[-1]["along"]["critical_ratio"])
    ends = [curve["y"][-1] for curve in browser.curves("rotation")[:2]]
    assert ends == pytest.approx([run.records[-1]["along"]["rotation"], 0.03])
    texts = "(view.model.renderers ?? []).map((r) => r.glyph.text?.value).filter(Boolean)"
    labels = browser.js(f"return [...figure.views()].flatMap((view) => {texts})")
    assert labels == ["plateau of large batches", *["plateau of small batches"] * 2]
    tip = next(tip for tip in browser.hover("sharpness", 5) if "plateau of small batches" in tip)
    assert "critical sharpness" in tip and "radians, in equilibrium 0.03" in tip
    text = browser.js("return document.body.textContent")
    assert "plateau of small ones, 2(1 − β)/η" in text
    (dot,) = browser.driver.find_elements("css selector", ".dot[title*='at least']")
    assert dot.get_attribute("title") == "seed 0: at least 0.9"


def test_a_page_without_updates_has_no_panels_of_them(browser, page):
    browser.open(page)
    assert browser.js("return document.querySelectorAll('.panel').length") == 4
