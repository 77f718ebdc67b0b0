"""Run the conformance suite in a separate process, so that every check has a result whatever a plugin does.

A plugin may raise, exit the process, never return or print without end. The check in which that happens
fails, and a new process runs the remaining checks. The process is
`python -m optim_family.conformance.runner NAME CHECK…`: it writes one line of JSON after the import and one
for each check; output of the plugin is discarded.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, final

from optim_family import registry
from optim_family.errors import OptimFamilyError, PluginError, UsageError, one_line

SECONDS: Final = 120.0  # for one check
_IMPORT_SECONDS: Final = 60.0  # in addition, for the imports before the first check


@final
@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: its name.
        expected: what a correct optimizer shows.
        measured: what this one showed; after a failure, what it declares and what its steps did.
        passed: whether the check passed.
        applies: whether the optimizer makes the declaration that the check tests.
        expected_failure: the reason that the optimizer gives in `expected_failures`; empty without one.
    """

    check: str
    expected: str
    measured: str
    passed: bool
    applies: bool = True
    expected_failure: str = ""

    @property
    def as_declared(self) -> bool:
        """Passed, or failed as declared in `expected_failures`."""
        return self.passed != bool(self.expected_failure)

    @property
    def verdict(self) -> str:
        """`passed`, `failed`, `n/a` or `expected failure`, with the reason if there is one."""
        if self.expected_failure:
            verdict = "passed, though expected to fail" if self.passed else "expected failure"
            return f"{verdict}: {self.expected_failure}"
        if not self.applies:
            return "n/a"
        return "passed" if self.passed else "failed"


def run_checks(
    name: str,
    checks: Sequence[str] = (),
    *,
    seconds: float = SECONDS,
    on_check: Callable[[str], object] = lambda check: None,
) -> Iterator[CheckResult]:
    """Run the checks on an optimizer and yield each result as soon as it is there.

    Args:
        name: of the optimizer.
        checks: names of checks; all if empty.
        seconds: time limit of one check.
        on_check: called with `3 of 15: NAME` before each check.

    Raises:
        UsageError: there is no such optimizer.
        PluginError: it cannot be loaded.
    """
    entry = registry.entry(name)
    total = 0

    def announce(check: str, left: int) -> None:
        nonlocal total
        total = total or left  # a new process begins with the checks that are left
        on_check(f"{total - left + 1} of {total}: {check}")

    while checks := (yield from _run_in_process(entry, checks, seconds, announce)):
        pass


def _run_in_process(
    entry: registry.PluginEntry, checks: Sequence[str], seconds: float, announce: Callable[[str, int], None]
) -> Generator[CheckResult, None, Sequence[str]]:
    """The results from one process; returns the checks that it did not reach."""
    command = [sys.executable, "-m", "optim_family.conformance.runner", entry.name, *checks]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        head = _next_line(process, seconds + _IMPORT_SECONDS)
        if head is None:
            raise registry.named_error(entry, f"{_failure(process)} while it was imported")
        if "error" in head:
            raise (UsageError if head["usage"] else PluginError)(head["error"])
        expected: dict[str, str] = head["expected"]
        for check in list(expected):
            announce(check, len(expected))
            line = _next_line(process, seconds)
            result = line or {"passed": False, "measured": f"{entry.name} {_failure(process)}"}
            reason = head["expected_failures"].get(check, "")
            yield CheckResult(check, expected.pop(check), expected_failure=reason, **result)
            if line is None:
                break
        return list(expected)
    finally:
        kill(process)


def _next_line(process: "subprocess.Popen[bytes]", seconds: float) -> dict[str, Any] | None:
    """None if the process ends before it, or does not write it in time."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        byte = os.read(process.stdout.fileno(), 1) if ready else b""
        if not byte:
            return None
        line += byte
    return dict(json.loads(line))


def _failure(process: "subprocess.Popen[bytes]") -> str:
    """Why a process wrote no line."""
    try:
        code = process.wait(1.0)
    except subprocess.TimeoutExpired:
        return "did not return in time"
    return f"ended the process with exit code {code}" if code >= 0 else f"was killed by signal {-code}"


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill it with all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _main(name: str, selected: Sequence[str]) -> None:
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)

    def write(**values: Any) -> None:
        print(json.dumps(values), file=stdout, flush=True)

    try:
        optimizer = registry.load(name)
    except OptimFamilyError as error:
        return write(error=str(error), usage=isinstance(error, UsageError))

    from optim_family.conformance import suite  # here: it imports torch
    from optim_family.conformance.harness import Undeclared

    checks = {check.__name__.removeprefix("check_"): check for check in suite.CHECKS}
    selected = selected or list(checks)
    expected = {name: suite.EXPECTED[checks[name]] for name in selected}
    write(expected=expected, expected_failures=dict(optimizer.expected_failures))
    for name in selected:
        passed, measured = run_check(checks[name], optimizer)
        write(passed=passed, measured=measured, applies=not isinstance(measured, Undeclared))


def run_check(check: Callable[[Any], str], optimizer: type) -> tuple[bool, str]:
    """Whether a check passes, and what it measured, in one line."""
    try:
        return True, check(optimizer)
    except AssertionError as error:
        return False, one_line(error)
    except (Exception, SystemExit) as error:
        return False, f"{optimizer.__name__} raises {type(error).__name__}: {one_line(error)}"


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
