import base64
import hashlib
import re

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from optim_family.figures import html

STUDY = {"name": "<script>alert(1)</script>", "question": "a < b & c?", "source": "x = 1"}
EMPTY = {
    "state": "1 run",
    "conditions": "data: digits",
    "verdicts": {},
    "classes": {},
    "tables": [],
    "differences": {"heading": "", "headers": [], "rows": []},
    "figures": [],
    "runs": [],
    "provenance": "{}",
    "downloads": {},
}


def page(**changes):
    return html.render("report.html", study=STUDY | changes, **EMPTY)


def test_what_a_template_is_given_is_escaped():
    text = page()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &lt; b &amp; c?" in text


def test_what_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="state"):
        html.render("report.html", study=STUDY)


def test_only_the_page_s_own_script_may_run_and_nothing_may_be_fetched():
    text = page()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert not re.findall(r"@import|url\(", text)


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
