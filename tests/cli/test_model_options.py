from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from optim_family.cli.model_options import fields, mistakes


class Model(BaseModel, extra="forbid"):
    rate: Annotated[float, Field(gt=0, le=1, description="the rate")] = 5e-4
    count: Annotated[int | None, Field(ge=2, lt=2**32, description="how many")] = None
    name: Annotated[str, Field(description="a name")]
    switch: Annotated[bool, Field(description="on or off")] = False
    word: Annotated[Literal["one", "two"], Field(description="a word")] = "one"
    views: Annotated[tuple[Literal["raw", "round"], ...] | None, Field(description="several")] = None

    @model_validator(mode="after")
    def _together(self) -> "Model":
        if self.switch and self.word == "two":
            raise ValueError("switch and two do not go together")
        return self


BY_NAME = {field.name: field for field in fields(Model)}


@pytest.mark.parametrize(
    ("name", "flag", "default", "limits", "kind", "choices"),
    [
        ("rate", "--rate", "0.0005", "> 0, ≤ 1", float, ()),
        ("count", "--count", "", "≥ 2, < 4294967296", int, ()),
        ("name", "--name", "", "", str, ()),
        ("switch", "--switch", "no", "", bool, ()),
        ("word", "--word", "one", "one, two", str, ("one", "two")),
        ("views", "--view", "", "raw, round", str, ("raw", "round")),
    ],
)
def test_a_field_has_its_flag_default_range_and_kind(name, flag, default, limits, kind, choices):
    field = BY_NAME[name]
    properties = field.flag, field.default, field.range, field.kind, field.choices
    assert properties == (flag, default, limits, kind, choices)
    assert field.meaning == Model.model_fields[name].description


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rate", "the rate (> 0, ≤ 1; default 0.0005)"),
        ("count", "how many (≥ 2, < 4294967296)"),
        ("name", "a name"),
        ("switch", "on or off (default no)"),
        ("word", "a word (default one)"),
        ("views", "several (raw, round)"),
    ],
)
def test_the_help_of_an_option_says_meaning_range_and_default(name, text):
    assert BY_NAME[name].option(name, "panel").help == text


def test_a_switch_can_be_set_both_ways_and_a_list_several_times():
    assert BY_NAME["switch"].option("switch", "panel").secondary_opts == ["--no-switch"]
    assert BY_NAME["views"].option("views", "panel").multiple


def test_a_flag_that_is_taken_carries_the_prefix():
    flags = [field.flag for field in fields(Model, other_flags=["--word", "--rate"], prefix="lion")]
    assert flags == ["--lion-rate", "--count", "--name", "--switch", "--lion-word", "--view"]


def lines_of_mistakes(**values):
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"name": "x", **values})
    return list(mistakes(caught.value, BY_NAME.values()))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rate": "0"}, "--rate: it must be greater than 0, not 0"),
        ({"rate": "a"}, "--rate: it must be a valid number, not a"),
        ({"count": "1.5"}, "--count: it must be a valid integer, not 1.5"),
        ({"word": "tow"}, "there is no word 'tow'; did you mean 'two'? Known: one, two"),
        ({"views": ["raw", "rund"]}, "there is no view 'rund'; did you mean 'round'? Known: raw, round"),
        ({"switch": True, "word": "two"}, "switch and two do not go together"),
    ],
)
def test_a_mistake_names_the_option_the_rule_and_the_value(values, line):
    assert lines_of_mistakes(**values) == [line]


def test_all_mistakes_are_reported():
    assert len(lines_of_mistakes(rate="0", count="1", word="three", views=["x", "y"])) == 5
