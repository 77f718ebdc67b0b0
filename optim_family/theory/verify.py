"""What the theory says, as cases: a statement, what came out of it here, and one figure.

A case is one file of `cases`. Its docstring is the statement: the claim in the first line, the mathematics,
and a last paragraph `Source: …`. `observe` lets the real optimizers run and the real probes measure,
`findings` holds the numbers that came out against those that had to, and `draw` shows them.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from optim_family.curvature.precision import full_precision
from optim_family.errors import one_line
from optim_family.runs.record_log import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes

E = TypeVar("E")


@final
@dataclass(frozen=True)
class Finding:
    """One number that a statement demands, and the one that came out.

    Attributes:
        quantity: what it is, in words and symbols.
        measured: what came out.
        low: the least it may be.
        high: the most it may be.
        expected: what it should be, where that is one number.
    """

    quantity: str
    measured: float
    low: float
    high: float
    expected: float | None = None

    @classmethod
    def equal(cls, quantity: str, expected: float, measured: float, *, within: float) -> Self:
        """Equal to `expected` up to the share `within` of it."""
        slack = within * abs(expected)
        return cls(quantity, float(measured), expected - slack, expected + slack, expected)

    @classmethod
    def vanishes(cls, quantity: str, measured: float, *, within: float) -> Self:
        """An error, which is at most `within`."""
        return cls(quantity, float(measured), -within, within, 0.0)

    @property
    def holds(self) -> bool:
        """The number lies where it must; a number that is not one does not."""
        return self.low <= self.measured <= self.high

    @property
    def demand(self) -> tuple[str, str]:
        """What is expected, and the tolerance: ("1.3069", "1 %"), ("0", "1e-12") or ("0.9 to 1.15", "")."""
        if self.expected is None:
            return _range(self.low, self.high), ""
        slack = self.high - self.expected
        share = slack / abs(self.expected) if self.expected else 0.0
        return f"{self.expected:.5g}", f"{100 * share:.3g} %" if share > 1e-4 else f"{slack:.1g}"


@final
@dataclass(frozen=True)
class Case(Generic[E]):
    """A statement and its check; the docstring of the module of `observe` is the statement.

    Attributes:
        name: as on the command line.
        observe: let it happen; what came out is all that the others look at.
        findings: the numbers that the statement demands.
        draw: the same, as one figure.
    """

    name: str
    observe: Callable[[], E]
    findings: Callable[[E], Iterable[Finding]]
    draw: Callable[["Axes", E], None]

    @property
    def claim(self) -> str:
        """The statement in a line."""
        return self._paragraphs[0].rstrip(".")

    @property
    def statement(self) -> str:
        """The paragraphs between the claim and its source."""
        return "\n\n".join(self._paragraphs[1:-1])

    @property
    def source(self) -> str:
        """Where the statement comes from."""
        return " ".join(self._paragraphs[-1].removeprefix("Source:").split())

    @property
    def _paragraphs(self) -> list[str]:
        return (inspect.getdoc(inspect.getmodule(self.observe)) or "").split("\n\n")


@final
@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        case: which.
        findings: none where it failed.
        seconds: wall time.
        evidence: what `observe` gave; None where it failed.
        failure: why there are no findings, if there are none.
    """

    case: Case[Any]
    findings: tuple[Finding, ...]
    seconds: float
    evidence: Any = None
    failure: str = ""

    @property
    def holds(self) -> bool:
        """There are findings, and all of them hold."""
        return bool(self.findings) and all(finding.holds for finding in self.findings)

    def as_record(self) -> dict[str, Any]:
        """As JSON; bounds that are infinite, and measured numbers that are none, are null."""
        case = {"name": self.case.name, "claim": self.case.claim, "source": self.case.source}
        findings = [
            {
                "quantity": f.quantity,
                "expected": f.expected,
                "measured": f.measured,
                "low": f.low,
                "high": f.high,
                "holds": f.holds,
            }
            for f in self.findings
        ]
        outcome = {"holds": self.holds, "seconds": self.seconds, "failure": self.failure}
        record: dict[str, Any] = finite(case | outcome | {"findings": findings})
        return record


def judge(case: Case[Any]) -> Verdict:
    """Run a case; what it raises is its failure, and stops nobody else."""
    begin = time.perf_counter()
    try:
        with full_precision():
            evidence = case.observe()
        findings = tuple(case.findings(evidence))
    except Exception as error:
        return Verdict(
            case, (), time.perf_counter() - begin, failure=f"{type(error).__name__}: {one_line(error)}"
        )
    return Verdict(case, findings, time.perf_counter() - begin, evidence)


def rows(verdicts: Iterable[Verdict]) -> list[list[str]]:
    """Lines of plain text under HEADERS: one for each case, and one for each of its findings."""
    return [row for verdict in verdicts for row in _rows(verdict)]


HEADERS = ["case", "claim", "expected", "measured", "tolerance", "", "s"]


def _rows(verdict: Verdict) -> list[list[str]]:
    name, seconds = verdict.case.name, f"{verdict.seconds:.1f}"
    if verdict.failure:
        return [[name, f"{verdict.case.claim}: {verdict.failure}", "", "", "", "fails", seconds]]
    found = [
        [
            "",
            f.quantity,
            f.demand[0],
            f"{f.measured:.5g}",
            f.demand[1],
            "holds" if f.holds else "falls short",
            "",
        ]
        for f in verdict.findings
    ]
    return [[name, verdict.case.claim, "", "", "", "", seconds], *found]


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
