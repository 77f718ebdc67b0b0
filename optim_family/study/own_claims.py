"""Read the claims that a study states itself: its tables `[[claim]]`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optim_family.analysis.claims import CLAIMS, Claim
from optim_family.analysis.study_results import QUANTITIES
from optim_family.errors import invalid_field, unknown
from optim_family.training.spec import RunSpec

_TEXT: Final = Field(min_length=1)


@final
class ClaimTable(BaseModel):
    """A table `[[claim]]`; see `analysis.claims.Claim` for the meaning of its keys."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, _TEXT]
    statement: Annotated[str, _TEXT]
    quantity: str
    where: dict[str, Any] = {}
    lowest: float = -math.inf
    highest: float = math.inf
    by: str | None = None
    than: Any = None
    direction: Literal["more", "less"] = "more"
    least: Annotated[float, Field(gt=0)] | None = None
    trend: bool = False


def read(tables: Any, specs: Sequence[RunSpec]) -> tuple[dict[str, Claim], list[str]]:
    """The claims by name, and every mistake in one line.

    Args:
        tables: the value of `claim` in the file.
        specs: all runs of the study; a claim that none of them can decide is a mistake.
    """
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        return {}, [f"claim: tables [[claim]] are needed, not {tables!r}"]
    claims, mistakes = dict[str, Claim](), list[str]()
    for number, table in enumerate(tables, 1):
        place = f"claim {table.get('name', number)}"
        try:
            parsed = ClaimTable.model_validate(table)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                key = str(detail["loc"][0])
                extra = detail["type"] == "extra_forbidden"
                text = unknown("key", key, ClaimTable.model_fields) if extra else invalid_field(detail, key)
                mistakes.append(f"{place}: {text}")
            continue
        wrong = list(_mistakes(parsed, claims, specs))
        mistakes += [f"{place}: {text}" for text in wrong]
        if not wrong:
            claims[parsed.name] = _claim(parsed)
    return claims, mistakes


def _claim(table: ClaimTable) -> Claim:
    return Claim(
        statement=table.statement,
        quantities=(table.quantity,),
        where=table.where,
        between=(table.lowest, table.highest),
        **{key: getattr(table, key) for key in ("by", "than", "direction", "least", "trend")},
    )


def _mistakes(table: ClaimTable, others: Mapping[str, Claim], specs: Sequence[RunSpec]) -> Iterator[str]:
    fields = [*RunSpec.model_fields, *dict.fromkeys(name for spec in specs for name in spec.hyper)]
    bounded = {"lowest", "highest"} & table.model_fields_set
    if table.name in CLAIMS or table.name in others:
        yield "the name is in use; choose another one"
    if table.quantity not in QUANTITIES:
        yield unknown("quantity", table.quantity, QUANTITIES)
    names = [name for name in (*table.where, table.by) if name is not None]
    yield from (unknown("field", name, fields) for name in names if name not in fields)
    if bool(bounded) == bool(table.by):
        yield "give either `by`, for pairs of runs, or `lowest` or `highest`, for each run"
    elif table.lowest > table.highest:
        yield f"no number lies between {table.lowest} and {table.highest}"
    elif not table.by and {"than", "least", "direction", "trend"} & table.model_fields_set:
        yield "`than`, `least`, `direction` and `trend` need `by`"
    elif (
        specs
        and {*names} <= {*fields}
        and not _claim(table).applies([spec.model_dump(mode="json") for spec in specs])
    ):
        yield "the study has no runs that could decide it"
