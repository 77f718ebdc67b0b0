"""One HTML page of runs: interactive figure, who is at the edge, table, static figure, cards."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optim_family.analysis import run_summary
from optim_family.analysis.run_warnings import warnings
from optim_family.analysis.study_table import EDGE, own_view, settings
from optim_family.figures import html
from optim_family.figures.figure_data import figure_data
from optim_family.runs.command import command
from optim_family.runs.labels import arms, compact
from optim_family.runs.run import Run
from optim_family.sharpness.views import BATCH, MIDPOINT, VIEWS, split_view_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_page(
    runs: Sequence[Run],
    summaries: Sequence[Mapping[str, Any]],
    *,
    title: str,
    figures: Sequence[tuple[str, "Figure"]] = (),
    problems: Sequence[str] = (),
    live: bool = False,
) -> str:
    """The page of one run or of several.

    Args:
        runs: a run without a record is listed.
        summaries: `run_summary.summary` of each.
        title: of the page.
        figures: caption and figure, for print and for readers without JavaScript.
        problems: runs that cannot be read, a line each.
        live: for a server, which delivers the scripts.
    """
    headers, rows = run_summary.summary_rows(runs, summaries)
    return html.render(
        "runs.html",
        scripts=html.LIVE_SCRIPTS if live else html.FIGURE_SCRIPTS,
        title=title,
        problems=problems,
        table=list(zip(headers, *rows, strict=True)) or [()],  # a row for each run
        figures=[(caption, html.inline_svg(figure, f"f{i}")) for i, (caption, figure) in enumerate(figures)],
        **page_values(runs, summaries, arms([run.spec for run in runs]), settings(runs)),
    )


def page_values(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], arms: Sequence[str], settings: Sequence[str]
) -> dict[str, Any]:
    """The values of the parts that every page of runs has, for `html.render`."""
    data = figure_data(runs, arms, settings)
    keys = [f"{arm}; {setting}" for arm, setting in zip(arms, settings, strict=True)]
    return {
        "data": data,
        "data_json": html.as_json(data),
        "midpoint": any(name.endswith(MIDPOINT) for name in data["views"]),
        "batch": any(name.endswith(BATCH) for name in data["views"]),
        "strip": edge_strip(runs, summaries, keys),
        "cards": [_card(*each) for each in zip(runs, summaries, keys, strict=True)],
    }


def edge_strip(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> dict[str, Any]:
    """A row for each arm in each setting, with the median ratio of every run as a position in per cent.

    The axis is logarithmic and ends at twice and half the threshold, or where the ratios do.
    """
    ratios = [
        summary["views"].get(own_view(run), {}).get("ratio")
        for run, summary in zip(runs, summaries, strict=True)
    ]
    positive = [ratio for ratio in ratios if ratio and ratio > 0]
    low, high = min([0.5, *positive]) / 1.1, max([2.0, *positive]) * 1.1

    def position(ratio: float) -> float:
        return round(100 * math.log(ratio / low) / math.log(high / low), 2)

    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
    for i, (run, key, ratio) in enumerate(zip(runs, keys, ratios, strict=True)):
        if ratio and ratio > 0:
            least = VIEWS[split_view_name(own_view(run))[0]].generalized
            text = f"{'at least ' if least else ''}{ratio:.3g}"
            rows[key].append(
                {"run": i, "at": position(ratio), "ratio": text, "seed": compact(run.spec["seed"])}
            )
    ticks = [x for x in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100, 1000) if low <= x <= high]
    return {
        "rows": rows,
        "ticks": [(compact(tick), position(tick)) for tick in ticks],
        "band": [position(EDGE[0]), position(EDGE[1])],
        "one": position(1.0),
        "edge": EDGE,
    }


def _card(run: Run, summary: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Title, status, warnings, facts, command, specification and provenance of one run."""
    versions = run.provenance.get("versions") or {}
    data = run.provenance.get("data") or {}
    known = {
        "folder": run.path.name,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "data": data.get("sha256") and f"SHA-256 {data['sha256']}",
        "device": run.provenance.get("device"),
    }
    facts = run_summary.summary_rows([run], [summary])[1]
    return {
        "key": key,
        "title": f"{key}; seed {compact(run.spec['seed'])}",
        "status": run.status.get("status") or "–",
        "warnings": list(warnings(run)),
        "facts": [*facts, *([name, text] for name, text in known.items() if text)],
        "command": command(run),
        "spec": json.dumps({"spec": run.spec, **run.provenance}, indent=2, ensure_ascii=False),
    }
