import pytest

from optim_family.errors import DIVERGED, Interrupted, OptimFamilyError, one_line


def test_every_class_has_an_exit_code_of_its_own():
    kinds = [
        kind for kind in OptimFamilyError.__subclasses__() if kind.__module__ == OptimFamilyError.__module__
    ]
    codes = [kind.exit_code for kind in (*kinds, Interrupted)]
    assert len(set(codes)) == len(codes) and not {0, 1, DIVERGED} & set(codes)


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("two\n  lines "), "two lines"), (KeyError(), "KeyError"), (OSError("\n"), "OSError")],
)
def test_what_an_exception_says_fits_in_one_line(error, line):
    assert one_line(error) == line
