"""Run `optim-family` inside the test's process."""

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
