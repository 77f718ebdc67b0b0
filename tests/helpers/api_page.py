"""The tables of names in docs/api.md, from the docstrings; `python -m tests.helpers.api_page` renews them."""

import ast
import inspect
import re

import optim_family
from tests.helpers import ROOT

PAGE = ROOT / "docs" / "api.md"
TITLES = "\n## All names\n", "\n## Measuring\n"  # of the section with the tables, and of the next
INTRODUCTION = """
The names of `dir(optim_family)`, then the public modules; the sections below have the whole docstrings.
"""


def text() -> str:
    """The page with the present tables."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(TITLES[0])[0], page.partition(TITLES[1])[2]
    tables = f"{INTRODUCTION}\n{_names(after)}\n\n{_modules(after)}\n"
    return before + TITLES[0] + tables + TITLES[1] + after


def _names(directives: str) -> str:
    """A row for each name of `dir(optim_family)`, in the order of the page's directives."""
    rows = []
    for name in set(dir(optim_family)) - {"__version__"}:
        value = getattr(optim_family, name)
        place = re.search(rf":: optim_family\.({name}|{value.__module__[13:]})\n", directives)
        assert place, f"docs/api.md has no directive for {name}"
        row = _row(name, value.__module__, inspect.getdoc(value))
        rows.append((place.start(), inspect.getsourcelines(value)[1], row))
    return _table("name", [row for *_, row in sorted(rows)])


def _modules(directives: str) -> str:
    """A row for each module that the page documents, some of which need packages that may be missing."""
    names = re.findall(r"automodule:: (\S+)\n", directives)
    trees = [ast.parse((ROOT / _path(name)).read_text(encoding="utf-8")) for name in names]
    rows = [_row(name[13:], name, ast.get_docstring(tree)) for name, tree in zip(names, trees, strict=True)]
    return _table("module", rows)


def _row(name: str, module: str, docstring: str | None) -> str:
    summary = (docstring or "").partition("\n")[0].replace("|", "\\|")
    return f"| [`{name}`](../{_path(module)}) | {summary} |"


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _table(kind: str, rows: list[str]) -> str:
    return "\n".join([f"| {kind} | |", "|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
