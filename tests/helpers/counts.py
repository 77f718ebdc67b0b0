"""How often each fault is tried: a few times in `make test`, by OPTIM_FAMILY_FAULTS in `make faults`."""

import os

SHARE = os.environ.get("OPTIM_FAMILY_FAULTS")


def tries(few: int, many: int) -> int:
    """`few`, or that share of `many` which the environment asks for, if that is more."""
    return few if SHARE is None else max(few, round(many * float(SHARE)))
