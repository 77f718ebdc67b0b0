"""Run `optim-family` inside the test's process."""

import re
from dataclasses import dataclass

import pytest

from optim_family.cli import main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def optim_family(capsys, *args) -> Answer:
    """Exit code, stdout and stderr of one command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in args])
    out, err = capsys.readouterr()
    return Answer(exited.value.code, out, err)


def refusal(answer: Answer, code: int = 2) -> str:
    """The one line on stderr of a command that was refused with this exit code."""
    assert (answer.code, answer.out) == (code, "")
    assert re.fullmatch(r"optim-family: .*\n", answer.err)
    return answer.err
