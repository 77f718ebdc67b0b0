"""Select runs by conditions on the fields of their specifications: `weight_decay = "> 0"`."""

import operator
import re
from collections.abc import Mapping
from typing import Any, Final

Condition = Any  # a value, a list of conditions of which one is met, "> 0", "not none", "full" or "all"

_COMPARISON: Final = re.compile(r"(>=|<=|>|<)\s*(\S+)")
_OPERATORS: Final = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_NULL: Final = ("full", "all")  # the words of a study for no mini-batches and no limit


def field_value(spec: Mapping[str, Any], name: str) -> Any:
    """A hyper-parameter or a field of a specification; None if it has neither."""
    return spec["hyper"][name] if name in spec["hyper"] else spec.get(name)


def matches(spec: Mapping[str, Any], conditions: Mapping[str, Condition]) -> bool:
    """Whether a run meets all conditions, by field."""
    return all(_meets(field_value(spec, name), condition) for name, condition in conditions.items())


def _meets(value: Any, condition: Condition) -> bool:
    if isinstance(condition, list | tuple):
        return any(_meets(value, each) for each in condition)
    if isinstance(condition, str):
        if comparison := _COMPARISON.fullmatch(condition):
            compare, bound = comparison.groups()
            return isinstance(value, int | float) and bool(_OPERATORS[compare](value, float(bound)))
        if condition.startswith("not "):
            return not _meets(value, condition.removeprefix("not "))
        if condition in _NULL:
            return value is None
    return bool(value == condition)
