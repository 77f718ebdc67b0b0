import re
from pathlib import Path

import pytest

from optim_family.errors import DIVERGED, Interrupted, OptimFamilyError, one_line

ROOT = Path(__file__).parents[1]
KINDS = [
    Interrupted,
    *(kind for kind in OptimFamilyError.__subclasses__() if kind.__module__ == OptimFamilyError.__module__),
]


def test_every_class_has_an_exit_code_of_its_own():
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes) and not {0, 1, DIVERGED} & set(codes)


def test_the_page_of_commands_lists_every_exit_code():
    table = re.findall(r"^\| (\d+) \| ", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert list(map(int, table)) == sorted({0, 1, DIVERGED, *(kind.exit_code for kind in KINDS)})


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("two\n  lines "), "two lines"), (KeyError(), "KeyError"), (OSError("\n"), "OSError")],
)
def test_what_an_exception_says_fits_in_one_line(error, line):
    assert one_line(error) == line
