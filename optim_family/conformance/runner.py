"""The conformance suite in a process of its own: whatever a plugin does, every promise gets an answer.

A plugin may fail, end its process, never return or print without end: the check in which it does so says so,
and the rest goes on in a new process. That is `python -m optim_family.conformance.runner NAME CHECK…`: it
answers with one line of JSON for itself and one for each check; what the plugin prints goes nowhere.
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
_STARTING: Final = 60.0  # more, for the imports before the first


@final
@dataclass(frozen=True)
class CheckResult:
    """What became of one promise.

    Attributes:
        promise: the name of the check.
        expected: what the check expects to measure.
        measured: what it measured; where the promise is broken, what was declared and what happened.
        kept: whether the two agree.
        excuse: why it is expected to fail, where the optimizer says so in `expected_failures`.
    """

    promise: str
    expected: str
    measured: str
    kept: bool
    excuse: str = ""

    @property
    def fine(self) -> bool:
        """Kept, or broken as announced."""
        return self.kept != bool(self.excuse)

    @property
    def verdict(self) -> str:
        """In a word, and the reason if there is one."""
        if self.excuse:
            return f"kept, though expected to fail: {self.excuse}" if self.kept else f"excused: {self.excuse}"
        return "kept" if self.kept else "broken"


def run_checks(name: str, promises: Sequence[str] = (), *, seconds: float = SECONDS) -> Iterator[CheckResult]:
    """One finding for each promise of an optimizer, as they come.

    Args:
        name: of the optimizer.
        promises: names of checks; all of them if none is named.
        seconds: what one check may take.

    Raises:
        UsageError: there is no such optimizer.
        PluginError: it cannot be loaded.
    """
    entry = registry.entry(name)
    left = yield from _one_process(entry, promises, seconds)
    while left:
        left = yield from _one_process(entry, left, seconds)


def _one_process(
    entry: registry.PluginEntry, promises: Sequence[str], seconds: float
) -> Generator[CheckResult, None, Sequence[str]]:
    """The findings of one process; returns the checks that it did not come to."""
    command = [sys.executable, "-m", "optim_family.conformance.runner", entry.name, *promises]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        head = _next_line(process, seconds + _STARTING)
        if head is None:
            lost = (
                f"optimizer {entry.name!r} of {entry.source} {_how_it_ended(process)} while it was imported"
            )
            raise PluginError(lost)
        if "error" in head:
            raise (UsageError if head["usage"] else PluginError)(head["error"])
        left: dict[str, str] = head["expected"]
        for promise in list(left):
            line = _next_line(process, seconds)
            kept, measured = (
                (line["kept"], line["measured"])
                if line
                else (False, f"{entry.name} {_how_it_ended(process)}")
            )
            yield CheckResult(promise, left.pop(promise), measured, kept, head["excuses"].get(promise, ""))
            if line is None:
                break
        return list(left)
    finally:
        _kill(process)


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
    answer: dict[str, Any] = json.loads(line)
    return answer


def _how_it_ended(process: "subprocess.Popen[bytes]") -> str:
    try:
        code = process.wait(1.0)
    except subprocess.TimeoutExpired:
        return "did not return in time"
    return f"ended the process with exit code {code}" if code >= 0 else f"was killed by signal {-code}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """With all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _serve(name: str, chosen: Sequence[str]) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        optimizer = registry.load(name)
    except OptimFamilyError as error:
        return say(error=str(error), usage=isinstance(error, UsageError))

    from optim_family.conformance import suite

    checks = {check.__name__.removeprefix("check_"): check for check in suite.CHECKS}
    chosen = chosen or list(checks)
    expected = {promise: suite.EXPECTED[checks[promise]] for promise in chosen}
    say(expected=expected, excuses=dict(optimizer.expected_failures))
    for promise in chosen:
        kept, measured = run_check(checks[promise], optimizer)
        say(kept=kept, measured=measured)


def run_check(check: Callable[[Any], str], optimizer: type) -> tuple[bool, str]:
    """Whether a promise is kept, and what was measured, in one line."""
    try:
        return True, check(optimizer)
    except AssertionError as error:
        return False, one_line(error)
    except (Exception, SystemExit) as error:
        return False, f"{optimizer.__name__} raises {type(error).__name__}: {one_line(error)}"


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
