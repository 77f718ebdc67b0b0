"""Self-contained HTML: one file with its style, script, figures and data, which loads nothing else.

Every value of a template is escaped, and the content security policy permits the page's own scripts only. The
figures of runs are drawn by BokehJS, which the installed package brings along; it makes no request.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Collection, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from optim_family.errors import OptimFamilyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES: Final = Path(__file__).parent / "templates"
_HEAD: Final = re.compile(r"<\?xml.*?<svg ", re.DOTALL)
_NOISE: Final = re.compile(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", re.DOTALL)
_REFERENCES: Final = re.compile(r'(id="|href="#|url\(#)')
_USED_IDS: Final = re.compile(r'(?:href="#|url\(#)([^")]+)')
_TAG: Final = re.compile(r"<[^>]*>")
# The font is the page's.
_NO_EFFECT: Final = re.compile(r' transform="rotate\(-0 [^"]*"|font-family: [^;"]*; ')
_ID: Final = re.compile(r' id="[^"]*"')
_LONG_NUMBER: Final = re.compile(r"\d+\.\d{3,}")


_POLICY: Final = (
    "default-src 'none'; script-src {}; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
LIVE_POLICY: Final = _POLICY.format("'self'") + "; connect-src 'self'"
SCRIPTS: Final = ("page.js",)  # of every page
FIGURE_SCRIPTS: Final = ("bokeh.js", "page.js", "figure.js")  # of a page with the interactive figure
LIVE_SCRIPTS: Final = (*FIGURE_SCRIPTS, "live.js")


def render(template: str, *, scripts: Sequence[str] = SCRIPTS, **values: Any) -> str:
    """An HTML page.

    Args:
        template: a file of `templates/`; it extends `page.html`, and its blocks are `title` and `body`.
            Tables of class `sortable` sort by a click on a header: by `data-value` of a cell where it is set.
        scripts: names for `script`, which the page has inside; a server delivers `LIVE_SCRIPTS`.
        values: the variables of the template; text is escaped, a missing one is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    live = scripts == LIVE_SCRIPTS
    texts = [] if live else [script(name) for name in scripts]
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in texts)
    return environment.get_template(template).render(
        **values,
        scripts=map(Markup, texts),
        live_scripts=LIVE_SCRIPTS if live else (),
        policy=Markup(LIVE_POLICY if live else _POLICY.format(hashes)),
    )


def as_json(value: Any) -> Markup:
    """JSON for a `script` element of a template: no character of it begins a tag or a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


@cache
def script(name: str) -> str:
    """The text of a script: a file of `templates/`, or BokehJS, read from its package without an import.

    Raises:
        OptimFamilyError: bokeh is not installed.
    """
    if name != "bokeh.js":
        return (_TEMPLATES / name).read_text(encoding="utf-8")
    package = find_spec("bokeh")
    if package is None or package.origin is None:
        raise OptimFamilyError("interactive pages need bokeh; install it with: pip install bokeh")
    path = Path(package.origin).parent / "server" / "static" / "js" / "bokeh.min.js"
    return path.read_text(encoding="utf-8")


@cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def inline_svg(figure: "Figure", name: str) -> Markup:
    """A figure as a compact SVG element whose text can be searched.

    Args:
        figure: of matplotlib.
        name: of letters and digits; a prefix that distinguishes its ids from those of other figures.
    """
    from optim_family.figures import style

    text = io.StringIO()
    with style.applied(**{"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    bare = " ".join(_NOISE.sub("", _HEAD.sub("<svg ", text.getvalue(), count=1)).split())
    used_ids = {f' id="{name}"' for name in _USED_IDS.findall(bare)}
    groups: list[bool] = []  # of each open group, whether it is kept
    small = _TAG.sub(lambda tag: _smaller(tag[0], used_ids, groups), bare).replace("> <", "><")
    return Markup(_REFERENCES.sub(rf"\g<1>{name}-", small))


def _smaller(tag: str, used_ids: Collection[str], groups: list[bool]) -> str:
    """A tag without unused ids, groups without attributes and digits below 0.01 pt; updates `groups`."""
    if tag == "</g>":
        return tag if groups.pop() else ""
    tag = _ID.sub(lambda match: match[0] if match[0] in used_ids else "", _NO_EFFECT.sub("", tag))
    if tag.startswith("<g") and not tag.endswith("/>"):
        groups.append(tag != "<g>")
        return tag if groups[-1] else ""
    return _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), tag)


def download(text: str) -> str:
    """A data: URI that holds a CSV file."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
