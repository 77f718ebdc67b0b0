"""The statements of the theory as cases: a statement, the numbers that it demands, and one figure.

A case is one file of `cases`. Its docstring is the statement: the claim in the first line, the mathematics,
and a last paragraph `Source: …`. Its functions are `observe`, which runs the real optimizers and probes and
returns their evidence, `checks`, which compares the measured numbers with the demanded ones, and `draw`.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, final

from matplotlib.axes import Axes
from torch import Tensor

from optim_family.curvature.precision import full_precision
from optim_family.errors import one_line
from optim_family.runs.record_log import finite


@final
@dataclass(frozen=True)
class NumericCheck:
    """A measured number and the interval that a statement demands.

    Attributes:
        quantity: its name, in words and symbols.
        measured: its value.
        low: the smallest value allowed.
        high: the largest value allowed.
        expected: the predicted value, where the statement has one.
    """

    quantity: str
    measured: float
    low: float
    high: float
    expected: float | None = None

    @classmethod
    def equal(cls, quantity: str, expected: float, measured: float, *, within: float) -> Self:
        """Demand `expected` up to a relative error `within`."""
        slack = within * abs(expected)
        return cls(quantity, float(measured), expected - slack, expected + slack, expected)

    @classmethod
    def vanishes(cls, quantity: str, errors: Tensor | float, *, within: float) -> Self:
        """Demand that an error, or the largest of a tensor of errors, is at most `within`."""
        measured = errors if isinstance(errors, float) else float(errors.abs().max())
        return cls(quantity, measured, -within, within, 0.0)

    @property
    def holds(self) -> bool:
        """The number lies in its interval; NaN never does."""
        return self.low <= self.measured <= self.high

    @property
    def demand(self) -> tuple[str, str]:
        """Expected value and tolerance: ("1.3069", "1 %"), ("0", "1e-12") or ("0.9 to 1.15", "")."""
        if self.expected is None:
            if math.isinf(self.low):
                return f"at most {self.high:g}", ""
            return f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}", ""
        slack = self.high - self.expected
        share = slack / abs(self.expected) if self.expected else 0.0
        return f"{self.expected:.5g}", f"{100 * share:.3g} %" if share > 1e-4 else f"{slack:.1g}"


Checks = Callable[[Any], Iterable[NumericCheck]]
Draw = Callable[[Axes, Any], None]


@final
@dataclass(frozen=True)
class Case:
    """A statement and its check; the docstring of the module of `observe` is the statement.

    Attributes:
        name: as on the command line.
        observe: run the experiment and return its evidence.
        checks: the numbers that the statement demands, from the evidence.
        draw: plot the evidence as one figure.
    """

    name: str
    observe: Callable[[], Any]
    checks: Checks
    draw: Draw

    @property
    def claim(self) -> str:
        """The statement in one line."""
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
class CaseResult:
    """The outcome of a case.

    Attributes:
        case: the case.
        checks: its numbers; empty if it raised an error.
        seconds: wall time.
        evidence: the value of `observe`; None if the case raised an error.
        failure: the error in one line, or "".
    """

    case: Case
    checks: tuple[NumericCheck, ...]
    seconds: float
    evidence: Any = None
    failure: str = ""

    @property
    def holds(self) -> bool:
        """There are checks, and all of them hold."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def as_record(self) -> dict[str, Any]:
        """As JSON; infinite bounds and NaN become null."""
        case = {"name": self.case.name, "claim": self.case.claim, "source": self.case.source}
        fields = "quantity", "expected", "measured", "low", "high", "holds"
        findings = [{field: getattr(check, field) for field in fields} for check in self.checks]
        outcome = {"holds": self.holds, "seconds": self.seconds, "failure": self.failure}
        record: dict[str, Any] = finite(case | outcome | {"findings": findings})
        return record


def run_case(case: Case) -> CaseResult:
    """Run a case; an error becomes its `failure`, so that the other cases still run."""
    begin = time.perf_counter()
    try:
        with full_precision():
            evidence = case.observe()
        checks = tuple(case.checks(evidence))
    except Exception as error:
        failure = f"{type(error).__name__}: {one_line(error)}"
        return CaseResult(case, (), time.perf_counter() - begin, failure=failure)
    return CaseResult(case, checks, time.perf_counter() - begin, evidence)


HEADERS = ["case", "claim", "expected", "measured", "tolerance", "", "s"]


def rows(results: Iterable[CaseResult]) -> list[list[str]]:
    """Table rows under HEADERS: one for each case and one for each of its checks."""
    table = []
    for result in results:
        claim, outcome = result.case.claim, ""
        if result.failure:
            claim, outcome = f"{claim}: {result.failure}", "fails"
        table.append([result.case.name, claim, "", "", "", outcome, f"{result.seconds:.1f}"])
        for check in result.checks:
            expected, tolerance = check.demand
            outcome = "holds" if check.holds else "fails"
            table.append(["", check.quantity, expected, f"{check.measured:.5g}", tolerance, outcome, ""])
    return table
