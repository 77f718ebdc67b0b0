"""The documentation as one site, built by Sphinx: all pages of the repository, the API from the docstrings.

The source folder is the whole checkout, so that a link leads to the same place on the site and on disk.
"""

import re
from pathlib import Path

import optim_family

project = "optim-family"
author = copyright = "The optim-family developers"
version = release = optim_family.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/*.md", "*/README.md", "examples/*/README.md", "results/**/*.md"]
exclude_patterns = ["build", "dist", "runs", ".*"]
root_doc = "docs/README"

html_theme = "furo"  # its fonts are those of the system, so that a page makes no request
html_title = f"optim-family {version}"
html_extra_path = ["index.html"]
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 4
nitpicky = True  # a reference to a name that has no entry is a warning too
nitpick_ignore_regex = [("py:.*", r"(?!optim_family).*")]  # the pages of other packages are not at hand

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_mock_imports = ["lightning", "transformers"]
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
default_role = "code"  # `x` in a docstring is code, as in Markdown


def setup(app):
    """Register the functions below."""
    app.connect("source-read", list_pages)
    app.connect("autodoc-process-docstring", read_as_markdown, priority=400)  # napoleon has 500


def list_pages(app, page, source):
    """An index page lists its links in the sidebar. A page to which no index links is an error."""
    if page.startswith(("docs/README", "results/")) and page.endswith("README"):
        root, folder = Path(app.srcdir), Path(app.srcdir, page).parent
        links = re.findall(r"\]\(([^():#]+)\.md[)#]", source[0])
        links = [link for link in links if page == root_doc or not link.startswith("..")]
        names = dict.fromkeys((folder / link).resolve().relative_to(root).as_posix() for link in links)
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", "", *(f"/{name}" for name in names), "```"])


def read_as_markdown(app, what, name, subject, options, lines):
    """Indented paragraphs of a docstring are formulas or code; |x| is a number; fields are listed."""
    for i in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:i]) if line), "")
        if lines[i].startswith("    ") and not lines[i - 1] and not above.startswith(" "):
            lines[i:i] = ["::", ""]
    lines[:] = [re.sub(r"\|(\S[^|`]*)\|", r"\\|\1\\|", line) for line in lines]
    if fields := getattr(subject, "model_fields", None):  # of hyper-parameters, which pydantic validates
        rows = (
            f"    {key}: {field.description}; default {field.default!r}." for key, field in fields.items()
        )
        lines += ["", "Attributes:", *rows]
