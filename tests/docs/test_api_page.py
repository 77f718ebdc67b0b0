"""docs/api.md lists the public names where no site shows their docstrings: in a checkout."""

import re

import optim_family
from tests.helpers import ROOT, api_page


def test_the_tables_agree_with_the_docstrings():
    page = api_page.PAGE.read_text(encoding="utf-8")
    assert page == api_page.text(), "python -m tests.helpers.api_page renews the tables"


def test_every_public_name_has_a_line_with_a_summary_and_a_link_to_its_source():
    page = api_page.PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([\w.]+)`\]\((\.\./[\w/]+\.py)\) \| (.{10,}\.) \|$", page, re.MULTILINE)
    names = [name for name, _, _ in rows]
    assert {*dir(optim_family)} - {"__version__"} <= {*names} and len(names) == len({*names})
    for name, path, _ in rows:
        source = (api_page.PAGE.parent / path).resolve()
        assert source.is_relative_to(ROOT / "optim_family") and source.is_file()
        if name in dir(optim_family):
            assert re.search(rf"^(class|def) {name}\b", source.read_text(encoding="utf-8"), re.MULTILINE)
