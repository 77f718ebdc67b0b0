import base64
import hashlib
import json
import re

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from optim_family.figures import html, run_page

STUDY = {"name": "<script>alert(1)</script>", "question": "a < b & c?", "source": "x = 1"}
EMPTY = {
    "state": "1 run",
    "conditions": "data: digits",
    "verdicts": {},
    "classes": {},
    "tables": [],
    "differences": {"heading": "", "headers": [], "rows": []},
    "figures": [],
    "downloads": {},
    **run_page.page_values([], [], [], []),
}


def page(**changes):
    return html.render("report.html", scripts=html.FIGURE_SCRIPTS, study=STUDY | changes, **EMPTY)


def test_what_a_template_is_given_is_escaped():
    text = page()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &lt; b &amp; c?" in text


def test_what_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="state"):
        html.render("report.html", study=STUDY)


def test_only_the_page_s_own_scripts_may_run_and_nothing_may_be_fetched():
    text = page()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert len(scripts) == 3 and f"script-src {hashes};" in policy
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    own = text.replace(html.script("bokeh.js"), "")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", own)
    assert not re.findall(r"@import|url\(", own)


def test_a_page_without_an_interactive_figure_has_no_bokeh():
    text = html.render("verify.html", rows=[])
    assert len(text) < 20_000 and text.count("<script>") == 1


def test_every_checkbox_of_the_figure_has_a_label_and_the_one_of_step_0_names_the_axes():
    labels = dict(re.findall(r'<label><input type="checkbox" name="(\w+)"[^>]*> ([^<]*)</label>', page()))
    assert labels["start"] == "y axes reach step 0" and all(labels.values())


def test_json_in_a_page_cannot_end_its_element():
    value = {"name": "</script><script>alert(1)</script><!--"}
    text = html.as_json(value)
    assert "<" not in text and json.loads(text) == value


def drawing(title):
    figure = Figure(figsize=(2, 1))
    ax = figure.add_subplot()
    ax.plot([0, 1], marker="o")
    ax.set_title(title)
    return figure


def test_figures_on_one_page_share_no_id():
    one, other = (html.inline_svg(drawing("x"), name) for name in ("a", "b"))
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip((one, other), ids, strict=True):
        used = set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r"url\(#([^)]*)\)", svg))
        assert used and used <= own


def test_a_figure_is_small_and_its_text_is_text():
    figure = drawing("lr 0.000125")
    figure.axes[0].plot([0, 1 / 3])
    svg = html.inline_svg(figure, "a")
    assert ">lr 0.000125<" in svg
    tags = "".join(re.findall(r"<[^>]*>", svg))
    assert not re.findall(r"\d\.\d{3}", tags) and re.findall(r"\d\.\d\d", tags)


def test_a_figure_is_an_element_of_the_page_and_the_same_every_time():
    svg = html.inline_svg(drawing("x --> <script>alert(1)</script>"), "a")
    assert svg.startswith("<svg ") and svg.endswith("</svg>")
    assert "<!--" not in svg and "<metadata" not in svg and "<script" not in svg
    assert svg == html.inline_svg(drawing("x --> <script>alert(1)</script>"), "a")


def test_a_download_is_the_text_itself():
    kind, _, data = html.download("a,b\nτ,2\n").partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(data).decode() == "a,b\nτ,2\n"
