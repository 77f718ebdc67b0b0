"""The conformance suite: tests of what an optimizer declares about itself against its real steps.

    import optim_family.testing
    from my_package.lion import Lion

    @pytest.mark.parametrize("check", optim_family.testing.CHECKS, ids=lambda check: check.__name__)
    def test_lion(check):
        check(Lion)

Every check builds the optimizer for each combination of its hyper-parameters' choices (literals, booleans
and the `examples` of a field), with weight decay and without, in float64 on a quadratic or on a
scale-invariant loss. It returns what it measured, or raises an AssertionError that names the declaration,
the hyper-parameters, what the real step did, and the likely cause. `optim-family optimizers check NAME` runs
them all.
"""

from optim_family.conformance.suite import CHECKS, EXPECTED, Check

_BY_NAME = {check.__name__: check for check in CHECKS}
__all__ = ["CHECKS", "EXPECTED", "Check", *_BY_NAME]


def __getattr__(name: str) -> Check:
    """Each check is also a member of this module: `testing.check_threshold_is_sharp`."""
    if name not in _BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _BY_NAME[name]
