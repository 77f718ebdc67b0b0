"""The page of a sweep over models, in Markdown: a summary, the numbers, and why there are none."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from optim_family.conformance.model_rows import NOT_MEASURED, TOLERANCE, VERDICTS, Row, disagreement, verdict

FILE: Final = "sweep.md"
HEADERS: Final = ("model", "weights", "λ₁", "by differences", "verdict")
_EXPLANATION: Final = f"""\
Each model is measured in float64, its usual piecewise linear layers smooth, on two to four random examples.
At the eigenvector v of λ₁ the Rayleigh quotient vᵀ(∇L(w + hv) − ∇L(w − hv)) / 2h takes no second derivative;
of six steps h the two neighbours that agree best count. The two numbers *agree* if they differ by at most
{TOLERANCE:g} of their size. The verdict is *cannot tell* if the quotients themselves differ by more. *Check*
is the result of the check that `measure` makes by itself. Parameters, buffers, gradients, modes and random
numbers must be the same bits afterwards."""


def page(rows: Sequence[Row], waiting: int, missing: Sequence[str]) -> str:
    """The whole page.

    Args:
        rows: in the order of the table.
        waiting: models that are still to be measured.
        missing: packages that are not installed.
    """
    measured = [row for row in rows if "refused" not in row]
    refused = [row for row in rows if "refused" in row]
    table = [[*cells(row), row["check"], ", ".join(row["changed"]) or "–"] for row in measured]
    reasons = [[row["model"], row["refused"]] for row in refused]
    reasons += [[f"{package}: all models", "not installed"] for package in missing]
    parts = ["# One small model of every family", _EXPLANATION, summary(rows, waiting)]
    if measured:
        parts.append(_table([*HEADERS, "check", "changed"], table))
    if reasons:
        parts.append(_table(["not measured", "why"], reasons))
    return "\n\n".join(parts) + "\n"


def summary(rows: Sequence[Row], waiting: int) -> str:
    """How many models were measured, and how far the numbers are apart."""
    measured = [row for row in rows if "refused" not in row]
    text = f"{len(measured)} of {len(rows)} models are measured"
    if apart := [disagreement(row) for row in measured if row["by differences"] is not None]:
        text += f"; the two numbers differ by {median(apart):.0e} in the median, {max(apart):.0e} at most"
    count = Counter(map(verdict, rows))
    text += f". Verdicts: {', '.join(f'{word} {count[word]}' for word in VERDICTS)}."
    text += f" {waiting} more are still to be measured: repeat the command." * bool(waiting)
    versions = _versions(rows)
    return f"{text} Versions: {versions}." if versions else text


def cells(row: Row) -> list[str]:
    """The cells of a row under `HEADERS`; without numbers the reason is the verdict."""
    if "refused" in row:
        return [row["model"], "–", "–", "–", f"{NOT_MEASURED}: {row['refused']}"]
    other = row["by differences"]
    numbers = [f"{row['value']:.7g}", "–" if other is None else f"{other:.7g}"]
    return [row["model"], f"{row['parameters']:,}", *numbers, verdict(row)]


def _versions(rows: Iterable[Row]) -> str:
    """`timm 1.0.20 and 1.0.31, torch 2.15.0`."""
    versions: dict[str, dict[str, None]] = {}
    for row in rows:
        for package, version in row.get("versions", {}).items():
            versions.setdefault(package, {})[version] = None
    return ", ".join(f"{package} {' and '.join(numbers)}" for package, numbers in sorted(versions.items()))


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "/") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
