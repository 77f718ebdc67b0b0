"""A study is a file: a question, claims to test, what its runs share, and grids of optimizers and models."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from optim_family.analysis.claims import CLAIMS
from optim_family.errors import UsageError, key_value, unknown
from optim_family.resources import folder
from optim_family.runs.labels import compact
from optim_family.study.grid import RUN_KEYS, as_grid_keys, expand
from optim_family.training.spec import RunSpec

# Section → key → field of the run; what is neither data nor measurement is training.
_DATA: Final = {"name": "data", "limit": "limit", "ghost_batch": "ghost_batch"}
_MEASURE: Final = {key: key for key in ("views", "every", "rtol", "midpoint", "batch_sharpness", "hvp")}
_TRAIN: Final = {key: key for key in RUN_KEYS if key not in {"optimizer", *_DATA.values(), *_MEASURE}}
SECTIONS: Final = {"data": _DATA, "train": _TRAIN, "measure": _MEASURE}
_KEYS: Final = ("question", "claims", *SECTIONS, "grid")


@final
@dataclass(frozen=True)
class StudySpec:
    """A question, and the runs that answer it.

    Attributes:
        name: of the file, without `.toml`.
        claims: names out of `claims.CLAIMS`.
        runs: no two the same; their device may be `auto`, which every machine resolves for itself.
        source: the text of the file.
    """

    name: str
    question: str
    claims: tuple[str, ...]
    runs: tuple[RunSpec, ...]
    source: str

    def only(self, conditions: Iterable[str]) -> "StudySpec":
        """The study with those of its runs that meet every condition: `optimizer=gd,sgd`, `lr=0.1`.

        Raises:
            UsageError: no run has such a field, or such a value.
        """
        runs = self.runs
        for condition in conditions:
            runs = _matching(runs, condition)
        return replace(self, runs=runs)


def names() -> list[str]:
    """The names of the packaged studies, sorted."""
    return sorted(path.stem for path in folder("studies").glob("*.toml"))


def questions() -> dict[str, str]:
    """Name → question of every packaged study; reads the files and validates nothing."""
    paths = {name: find(name) for name in names()}
    return {name: str(_table(path, _text(path)).get("question", "")) for name, path in paths.items()}


def find(name: str) -> Path:
    """The file of a packaged study; a path that ends in `.toml` is itself.

    Raises:
        UsageError: no study has this name.
    """
    if name.endswith(".toml"):
        return Path(name)
    if name not in names():
        raise UsageError(unknown("study", name, [*names(), "PATH.toml"]))
    return folder("studies") / f"{name}.toml"


def load(name: str, settings: Iterable[str] = ()) -> StudySpec:
    """Read a study, and expand it.

    Args:
        name: of a packaged study, or a path that ends in `.toml`.
        settings: `train.steps=100`, with values as in TOML; they hold for every grid.

    Raises:
        UsageError: there is no such study, or mistakes: all of them, a line each, with their place.
    """
    path = find(name)
    text = _text(path)
    table = _set(_table(path, text), settings)
    mistakes = [f"{path}{place}: {what}" for place, what in _structure(table)]
    shared, runs = _shared(table), dict[str, RunSpec]()
    for number, grid in enumerate(_grids(table), 1):
        for found in expand({field: value for field, (_, value) in shared.items()}, grid):
            if isinstance(found, RunSpec):
                runs.setdefault(found.key, found)
            else:
                place = shared[found.key][0] if found.key in shared.keys() - grid else f"grid {number}"
                mistakes.append(f"{path}, {place}: {found.text}")
    if mistakes:
        raise UsageError("\n".join(dict.fromkeys(mistakes)))
    claims = tuple(table.get("claims", CLAIMS))
    return StudySpec(path.stem, table["question"], claims, tuple(runs.values()), text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the study {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"the study {path} is not text in UTF-8: {error}") from None


def _table(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of syntax, enormous numbers and nesting
        raise UsageError(f"the study {path} is not valid TOML: {error}") from None


def _set(table: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The table with the settings in its sections, and the grids silent about those fields."""
    known = {f"{section}.{key}": (section, key) for section, keys in SECTIONS.items() for key in keys}
    for setting in settings:
        place, text = key_value(setting, "--set")
        if place not in known:
            raise UsageError(f"--set {setting}: {unknown('setting', place, known)}")
        section, key = known[place]
        if isinstance(given := table.setdefault(section, {}), dict):
            given[key] = _value(text)
        for grid in _grids(table):
            grid.pop(SECTIONS[section][key], None)
    return table


def _value(text: str) -> Any:
    """As in TOML; or a bare word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _grids(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    grids = table.get("grid")
    return [grid for grid in grids if isinstance(grid, dict)] if isinstance(grids, list) else []


def _structure(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, mistake) for all that is wrong outside the grids."""
    yield from (("", unknown("key", key, _KEYS)) for key in table if key not in _KEYS)
    if not isinstance(table.get("question"), str):
        yield "", "a study has a question, a text"
    if not _grids(table) or len(_grids(table)) < len(table["grid"]):
        yield "", "a study has at least one [[grid]], with an optimizer and a model"
    claims = table.get("claims", [])
    if isinstance(claims, list):
        yield from (("", unknown("claim", str(claim), CLAIMS)) for claim in claims if claim not in CLAIMS)
    else:
        yield "", f"claims: a list of names is needed, not {claims!r}; known: {', '.join(CLAIMS)}"
    for section, keys in SECTIONS.items():
        given = table.get(section, {})
        if isinstance(given, dict):
            yield from ((f", {section}", unknown("key", key, keys)) for key in given if key not in keys)
        else:
            yield "", f"{section}: a table with {', '.join(keys)} is needed, not {given!r}"


def _shared(table: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Field of the run → the section that says it, and the value."""
    given = {name: table[name] for name in SECTIONS if isinstance(table.get(name), dict)}
    return {
        SECTIONS[name][key]: (name, value)
        for name, section in given.items()
        for key, value in section.items()
        if key in SECTIONS[name]
    }


def _matching(runs: tuple[RunSpec, ...], condition: str) -> tuple[RunSpec, ...]:
    key, text = key_value(condition, "--only")
    values = [as_grid_keys(run) for run in runs]
    if not any(key in each for each in values):
        known = dict.fromkeys(key for each in values for key in each)
        raise UsageError(f"--only {condition}: {unknown('key', key, known)}")
    wanted = [_value(word) for word in text.split(",")]
    found = tuple(run for run, each in zip(runs, values, strict=True) if key in each and each[key] in wanted)
    if not found:
        there = dict.fromkeys(compact(each[key]) for each in values if key in each)
        raise UsageError(f"--only {condition}: {unknown(f'run with {key}', text, there)}")
    return found
