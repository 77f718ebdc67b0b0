"""Read a study from TOML: a question, claims, shared options, and grids of optimizers and models."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final, final

from optim_family.analysis.claims import CLAIMS, Claim
from optim_family.errors import UsageError, UsageErrors, key_value, one_line, unknown
from optim_family.resources import folder, read_toml, toml_names
from optim_family.runs.labels import compact
from optim_family.study import own_claims
from optim_family.study.grid import RUN_KEYS, as_grid_keys, expand
from optim_family.training.spec import RunSpec

# Section → key → field of the run.
_DATA: Final = {"name": "data", "limit": "limit", "ghost_batch": "ghost_batch"}
_MEASURE: Final = {
    key: key
    for key in ("views", "every", "rtol", "reading", "midpoint", "batch_sharpness", "along", "budget", "hvp")
}
_TRAIN: Final = {key: key for key in RUN_KEYS if key not in {"optimizer", *_DATA.values(), *_MEASURE}}
SECTIONS: Final = {"data": _DATA, "train": _TRAIN, "measure": _MEASURE}
_KEYS: Final = ("question", "claims", "claim", "test_set", *SECTIONS, "grid")


@final
@dataclass(frozen=True)
class StudySpec:
    """A question, and the runs that answer it.

    Attributes:
        name: of the file, without `.toml`.
        claims: by name; those of `claims.CLAIMS`, by default all that its runs can decide, and its own.
        runs: all different; each machine resolves the device `auto` for itself.
        source: the text of the file, which the report shows.
        left_out: the runs that `only` has removed.
        test_set: the further test set that the report shows and judges; empty for the first.
    """

    name: str
    question: str
    claims: Mapping[str, Claim]
    runs: tuple[RunSpec, ...]
    source: str
    left_out: tuple[RunSpec, ...] = ()
    test_set: str = ""

    def only(self, conditions: Iterable[str]) -> "StudySpec":
        """The study with the runs that meet every condition: `optimizer=gd,sgd`, `lr=0.1`.

        Raises:
            UsageError: no run has such a field, or such a value.
        """
        runs = self.runs
        for condition in conditions:
            runs = _matching(runs, condition)
        left_out = tuple(run for run in self.runs if run not in runs)
        return replace(self, runs=runs, left_out=self.left_out + left_out)


def names() -> list[str]:
    """The names of the packaged studies, sorted."""
    return toml_names("studies")


def questions() -> dict[str, str]:
    """Name → question of every packaged study, without validation."""
    return {name: str(read_toml(find(name), "the study")[0].get("question", "")) for name in names()}


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
    """Read and validate a study.

    Args:
        name: of a packaged study, or a path that ends in `.toml`.
        settings: `train.steps=100`, with TOML values; they override every grid.

    Raises:
        UsageError: no such study.
        UsageErrors: an invalid study: a line for each mistake, with its place.
    """
    path = find(name)
    table, text = read_toml(path, "the study")
    _override(table, settings)
    mistakes = [f"{path}{place}: {mistake}" for place, mistake in _structural_mistakes(table)]
    shared, runs = _shared_fields(table), dict[str, RunSpec]()
    for number, grid in enumerate(_grids(table), 1):
        for run in expand({field: value for field, (_, value) in shared.items()}, grid):
            if isinstance(run, RunSpec):
                runs.setdefault(run.key, run)
            else:
                place = shared[run.key][0] if run.key in shared.keys() - grid else f"grid {number}"
                mistakes.append(f"{path}, {place}: {run.text}")
    own, wrong = own_claims.read(table.get("claim", []), tuple(runs.values()))
    mistakes += [f"{path}, {mistake}" for mistake in wrong]
    if mistakes:
        raise UsageErrors("\n".join(dict.fromkeys(map(one_line, mistakes))))
    claims = {name: CLAIMS[name] for name in table.get("claims", _applicable_claims(runs.values()))}
    test_set = table.get("test_set", "")
    return StudySpec(
        path.stem, table["question"], claims | own, tuple(runs.values()), text, test_set=test_set
    )


def _applicable_claims(runs: Iterable[RunSpec]) -> list[str]:
    """The names of the claims that these runs can decide."""
    specs = [run.model_dump(mode="json") for run in runs]
    return [name for name, claim in CLAIMS.items() if claim.applies(specs)]


def _override(table: dict[str, Any], settings: Iterable[str]) -> None:
    """Write the settings to the table, and remove the fields of runs from all grids."""
    known = {f"{section}.{key}": (section, key) for section, keys in SECTIONS.items() for key in keys}
    for setting in settings:
        place, text = key_value(setting, "--set")
        if place == "test_set":
            table[place] = _value(text)
            continue
        if place not in known:
            raise UsageError(f"--set {setting}: {unknown('setting', place, (*known, 'test_set'))}")
        section, key = known[place]
        if isinstance(options := table.setdefault(section, {}), dict):
            options[key] = _value(text)
        for grid in _grids(table):
            grid.pop(SECTIONS[section][key], None)


def _value(text: str) -> Any:
    """Parse a TOML value, or a word without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _grids(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    grids = table.get("grid")
    return [grid for grid in grids if isinstance(grid, dict)] if isinstance(grids, list) else []


def _structural_mistakes(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, mistake) for every mistake outside the grids."""
    yield from (("", unknown("key", key, _KEYS)) for key in table if key not in _KEYS)
    if not isinstance(table.get("question"), str):
        yield "", "a study has a question, a text"
    if not isinstance(table.get("test_set", ""), str):
        yield "", f"test_set: the name of a further test set is needed, not {table['test_set']!r}"
    if not _grids(table) or len(_grids(table)) < len(table["grid"]):
        yield "", "a study has at least one [[grid]], with an optimizer and a model"
    claims = table.get("claims", [])
    if isinstance(claims, list):
        yield from (("", unknown("claim", str(claim), CLAIMS)) for claim in claims if claim not in CLAIMS)
    else:
        yield "", f"claims: a list of names is needed, not {claims!r}; known: {', '.join(CLAIMS)}"
    for section, keys in SECTIONS.items():
        options = table.get(section, {})
        if isinstance(options, dict):
            yield from ((f", {section}", unknown("key", key, keys)) for key in options if key not in keys)
        else:
            yield "", f"{section}: a table with {', '.join(keys)} is needed, not {options!r}"


def _shared_fields(table: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Field of the run → (section, value)."""
    return {
        keys[key]: (section, value)
        for section, keys in SECTIONS.items()
        if isinstance(options := table.get(section), dict)
        for key, value in options.items()
        if key in keys
    }


def _matching(runs: tuple[RunSpec, ...], condition: str) -> tuple[RunSpec, ...]:
    key, text = key_value(condition, "--only")
    fields = [as_grid_keys(run) for run in runs]
    existing = dict.fromkeys(compact(each[key]) for each in fields if key in each)
    if not existing:
        raise UsageError(f"--only {condition}: {unknown('key', key, dict.fromkeys(chain(*fields)))}")
    values = [_value(word) for word in text.split(",")]
    matching = tuple(r for r, each in zip(runs, fields, strict=True) if key in each and each[key] in values)
    if not matching:
        raise UsageError(f"--only {condition}: {unknown(f'run with {key}', text, existing)}")
    return matching
