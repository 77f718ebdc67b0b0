"""The site of `make docs`: links lead somewhere, public names have entries, pages make no request."""

import importlib.util
import re
import subprocess
import sys
import zlib

import pytest

import optim_family
from tests.helpers import ROOT
from tests.helpers.environments import ENVIRONMENT

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("sphinx", "myst_parser", "furo"))),
    reason="the extra docs is not installed",
)
TAGS = re.compile(r"<(?:script|link|img|iframe|source|object|form)\b[^>]*>|@import[^;]*|url\([^)]*\)")


def build(sources, out):
    """The command of `make docs`."""
    words = re.search(r"-m (sphinx .*) \. build/docs$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    words = words.replace("build/doctrees", f"{out}/.doctrees").replace("-c docs", f"-c {ROOT}/docs").split()
    command = [sys.executable, "-m", *words, sources, out]
    return subprocess.run(list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT, out)
    assert built.returncode == 0, built.stderr
    return out


def test_every_public_name_has_an_entry(site):
    packed = (site / "objects.inv").read_bytes().split(b"zlib.\n", 1)[1]
    entries = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    for name in set(optim_family.__all__) - {"__version__"}:
        value = getattr(optim_family, name)
        assert {f"optim_family.{name}", f"{value.__module__}.{name}"} & entries, name


def test_hyper_parameters_and_equations_stand_in_the_api(site):
    text = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert "memory of the second moment β₂; default 0.99" in text
    assert re.search(r"<pre>(<[^>]*>|\s)*ĝ = ρ g   ", text)


def test_a_page_makes_no_request(site):
    pages = [path for kind in ("html", "css") for path in site.rglob(f"*.{kind}")]
    assert len(pages) > 20
    for path in pages:
        for tag in TAGS.findall(path.read_text(encoding="utf-8")):
            assert "//" not in tag.replace("http://www.w3.org/", ""), f"{path}: {tag}"


def test_the_search_knows_every_page(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert '"docs/api"' in index and '"results/zoo/README"' in index and '"lanczo' in index


def test_a_broken_link_and_a_page_outside_every_index_end_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text(
        "# Index\n\n[page](page.md), [here](#index), [part](page.md#a-part)\n"
    )
    page = tmp_path / "docs" / "page.md"
    page.write_text("# Page\n\n## A part\n")
    good = build(tmp_path, tmp_path / "site")
    assert good.returncode == 0, good.stderr
    broken = "nowhere.md", "README.md#nowhere", "#nowhere", "../nowhere.py"
    page.write_text("# Page\n\n## A part\n\n" + " ".join(f"[link]({target})" for target in broken))
    (tmp_path / "README.md").write_text("# Alone\n")
    bad = build(tmp_path, tmp_path / "site")
    assert bad.returncode == 1
    assert bad.stderr.count("[myst.xref_missing]") == bad.stderr.count("nowhere") == len(broken), bad.stderr
    assert "README.md: WARNING: document isn't included in any toctree" in bad.stderr


def test_every_optimizer_of_the_package_is_in_the_api():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "optim_family" / "optimizers").glob("*.py")} - {"__init__"}
    assert all(f"automodule:: optim_family.optimizers.{name}\n" in page for name in modules)
