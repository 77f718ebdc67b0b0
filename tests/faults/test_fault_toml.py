"""Malformed TOML: refused with its place, all mistakes at once, never a traceback."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optim_family.errors import UsageError
from optim_family.networks import cards
from optim_family.resources import folder
from optim_family.study import spec
from tests.helpers.cli_runner import optim_family
from tests.helpers.counts import tries

EXAMPLES = tries(100, 5000)
SOURCES = {
    "study": (folder("studies") / "digits.toml").read_bytes(),
    "card": (folder("models") / "resnet18.toml").read_bytes(),
}
LOAD = {"study": spec.load, "card": cards.load}
pieces = st.sampled_from(
    [b"[", b"]", b'"', b"=", b"\n", b"{", b"lr = ", b"\xff", b"\0", b"[[grid]]\n", b"nan", b"-"]
)


def damaged(text, place, piece, length):
    place %= len(text)
    return text[:place] + piece + text[place + length :]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(sorted(SOURCES)),
    place=st.integers(0, 10_000),
    piece=pieces | st.binary(max_size=8),
    length=st.integers(0, 30),
)
def test_a_damaged_file_is_refused_by_its_name_or_is_still_right(
    kind, place, piece, length, tmp_path_factory, held
):
    path = tmp_path_factory.getbasetemp() / f"{kind}.toml"
    path.write_bytes(damaged(SOURCES[kind], place, piece, length))
    try:
        LOAD[kind](str(path))
    except UsageError as error:
        assert f"{kind}.toml" in str(error)
    held("malformed TOML", of=EXAMPLES)


WRONG = {
    "syntax": (b"lr = = 3", "line 1, column 6"),
    "a key twice": (b'question = "a"\nquestion = "b"\n', "line 2"),
    "deep nesting": (b"x = " + b"[" * 100_000, "not valid TOML"),
    "deep tables": (b"x = " + b"{a=" * 100_000, "not valid TOML"),
    "not UTF-8": (b'question = "\xff"', "position 12"),
    "huge": (b"x = 1\n" * 200_000, "line 2"),
    "a byte of nothing": (b"\0", "line 1"),
    "empty": (b"", ""),
    "a number of a million digits": (b"x = " + b"9" * 1_000_000, ""),
    "a date that is none": (b"x = 2026-13-45", "line 1"),
}


@pytest.mark.parametrize("kind", sorted(SOURCES))
@pytest.mark.parametrize("wrong", WRONG)
def test_these_are_refused_with_their_place(tmp_path, capsys, kind, wrong, held):
    content, place = WRONG[wrong]
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    command = ("study", "show", path) if kind == "study" else ("models", "show", path)
    answer = optim_family(capsys, *command)
    assert answer.code == 2 and not answer.out
    assert "mine.toml" in answer.err and place in answer.err and len(answer.err) < 2000
    held("malformed TOML", of=EXAMPLES)


def test_all_mistakes_are_told_at_once(tmp_path):
    text = SOURCES["study"].decode() + '\n[[grid]]\noptimizer = "gdd"\n[[grid]]\noptimizer = "gd"\nlrr = 1\n'
    (tmp_path / "mine.toml").write_text("colour = 1\n" + text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        spec.load(str(tmp_path / "mine.toml"))
    assert all(word in str(caught.value) for word in ("colour", "gdd", "lrr"))


def test_the_damage_is_real():
    dice = random.Random(0)
    changed = [damaged(SOURCES["card"], dice.randrange(10_000), b"[", 3) for _ in range(20)]
    assert all(text != SOURCES["card"] for text in changed)
