"""Labels of runs from their specifications: short, and different for different runs."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Spec = Mapping[str, Any]

SYMBOLS = {"weight_decay": "wd", "momentum": "β", "beta1": "β₁", "beta2": "β₂", "eps": "ε"}
ALWAYS = ("lr", "weight_decay")
NESTED = ("hyper", "config")  # fields that hold others: hyper-parameters, and what a script adds
ARM = ("optimizer", "hyper", "batch_size", "schedule")  # a study compares these; its other fields are equal
# The words for a field of a specification, with and without a value.
SETTING = {
    "model": ("{}", ""),
    "data": ("{}", ""),
    "limit": ("{} images", "all images"),
    "batch_size": ("batch {}", "full batch"),
    "ghost_batch": ("ghost batch {}", "default ghost batch"),
    "norm": ("{} norm", ""),
    "loss": ("{}", ""),
    "schedule": ("{}", "constant rate"),
    "seed": ("seed {}", ""),
}
# Part of a label only if nothing else distinguishes two runs; `data` with its whole path.
INCIDENTAL = "data precision device steps views every rtol midpoint batch_sharpness along budget hvp".split()


def label(spec: Spec) -> str:
    """Optimizer and important hyper-parameters of one run: `rmsprop  lr 0.01, wd 0.05, β₂ 0.99`.

    Args:
        spec: a RunSpec as JSON.
    """
    return _text(spec, _important(spec), ())


def labels(specs: Sequence[Spec], names: Sequence[str] | None = None) -> list[str]:
    """Labels that distinguish several runs: optimizer, lr, wd, and whatever differs between the runs.

    Args:
        specs: RunSpecs as JSON.
        names: appended where two specifications are equal; numbers if None.
    """
    if len(specs) == 1:
        return [label(specs[0])]
    fields = [field for field in SETTING if _differs(_words(spec, field) for spec in specs)]
    configs = [spec.get("config") or {} for spec in specs]
    keys = dict.fromkeys(key for config in configs for key in config)
    fields += [f"config.{key}" for key in keys if _differs(config.get(key) for config in configs)]
    several = _differs(spec["optimizer"] for spec in specs)
    texts = [
        _text(spec, _distinguishing(spec, _same_optimizer(spec, specs), first), fields)
        for spec in specs
        for first in [_important(spec) if several else ALWAYS]
    ]
    for field in INCIDENTAL:
        values = [compact(spec.get(field)) for spec in specs]
        if len(set(texts)) < len(texts) and _differs(values):
            texts = [f"{text}, {field} {value}" for text, value in zip(texts, values, strict=True)]
    names = names or [f"#{i + 1}" for i in range(len(specs))]
    return [f"{t}, {name}" if texts.count(t) > 1 else t for t, name in zip(texts, names, strict=True)]


def arms(specs: Sequence[Spec]) -> list[str]:
    """Labels of a study's configurations: `rmsprop lr 0.02, wd 0.05, raw`, `sgd lr 0.5, wd 0, batch 100`.

    They contain learning rate, weight decay, whatever else differs between the runs of an optimizer (words
    without their name), the mini-batch, and the schedule if runs differ in it; not seed, model and data.

    Args:
        specs: RunSpecs as JSON; those that differ in optimizer, hyper-parameters, batch size or schedule have
            different names, others the same.
    """
    keys = [json.dumps([spec.get(field) for field in ARM], sort_keys=True) for spec in specs]
    names = {key: _arm(spec, specs) for key, spec in dict(zip(keys, specs, strict=True)).items()}
    count = Counter(names.values())
    for i, (key, name) in enumerate(names.items(), 1):
        names[key] = f"{name}, #{i}" if count[name] > 1 else name
    return [names[key] for key in keys]


def setting(specs: Sequence[Spec]) -> str:
    """The fields that all runs share: `resnet18, digits, all images, full batch, …, moment diagonal`."""
    first, *others = specs
    fields = [f for f in SETTING if f in first and all(o.get(f) == first[f] for o in others)]
    # The limit and batch size of a script's run, which has no norm, are unknown.
    optional = ("ghost_batch",) if first.get("norm") else ("ghost_batch", "limit", "batch_size")
    shared = [
        words for f in fields if (words := _words(first, f)) and (f not in optional or first[f] is not None)
    ]
    choices = {h: x for h, x in first["hyper"].items() if isinstance(x, str)}
    variant = [f"{h} {x}" for h, x in choices.items() if all(o["hyper"].get(h) == x for o in others)]
    return ", ".join(shared + variant)


def flat(spec: Spec) -> dict[str, Any]:
    """The specification without nested fields: `hyper.lr`, `config.width`."""
    nested = {f"{n}.{key}": value for n in NESTED for key, value in (spec.get(n) or {}).items()}
    return {name: value for name, value in spec.items() if name not in NESTED} | nested


def facts(record: Mapping[str, Any]) -> str:
    """A record in brief: loss, accuracies, the ratio of each view to its threshold.

    >>> facts({"train_loss": 0.25, "test_accuracy": 0.5, "views": {"raw": {"ratio": 1.0}}})
    'loss 0.25  test 50.0%  raw ratio 1.00'
    """
    loss = record.get("train_loss")
    words = ["loss not finite" if loss is None else f"loss {loss:.3g}"]
    for part in ("train", "test"):
        if (accuracy := record.get(f"{part}_accuracy")) is not None:
            words.append(f"{part} {accuracy:.1%}")
    for name, reading in record.get("views", {}).items():
        if (ratio := (reading or {}).get("ratio")) is not None:
            words.append(f"{name} ratio {ratio:.2f}")
    return "  ".join(words)


def compact(value: Any) -> str:
    """A short text for a value: 1e-05 → 1e-5, 2.0 → 2; six significant digits."""
    if value is None:
        return "unset"
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", f"{value:.6g}")
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _important(spec: Spec) -> list[str]:
    """Learning rate and weight decay; other numbers and switches unless they are 0; not ε."""
    hyper = spec["hyper"]
    others = [h for h, x in hyper.items() if isinstance(x, int | float) and x and h != "eps"]
    return list(dict.fromkeys([*(h for h in ALWAYS if h in hyper), *others]))


def _distinguishing(spec: Spec, same: Sequence[Spec], first: Sequence[str] = ALWAYS) -> list[str]:
    """The hyper-parameters `first`, and those that differ between the runs `same` of the optimizer."""
    hyper = spec["hyper"]
    differing = (h for h in hyper if _differs(other["hyper"].get(h) for other in same))
    return list(dict.fromkeys([*(h for h in first if h in hyper), *differing]))


def _same_optimizer(spec: Spec, specs: Sequence[Spec]) -> list[Spec]:
    return [other for other in specs if other["optimizer"] == spec["optimizer"]]


def _arm(spec: Spec, specs: Sequence[Spec]) -> str:
    hyper, same = spec["hyper"], _same_optimizer(spec, specs)
    names = _distinguishing(spec, same)
    words = [hyper[h] if isinstance(hyper[h], str) else _hyper_words(h, hyper[h]) for h in names]
    if spec["batch_size"] is not None or _differs(other["batch_size"] for other in same):
        words.append(_words(spec, "batch_size"))
    if spec.get("schedule") and _differs(other.get("schedule") for other in specs):
        words.append(spec["schedule"])
    return f"{spec['optimizer']} {', '.join(words)}".rstrip()


def _text(spec: Spec, hyper: Iterable[str], fields: Iterable[str]) -> str:
    parts = [_hyper_words(h, spec["hyper"][h]) for h in hyper] + [_words(spec, field) for field in fields]
    return f"{spec.get('name') or spec['optimizer']}  {', '.join(filter(None, parts))}".rstrip()


def _hyper_words(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{SYMBOLS.get(name, name)} {compact(value)}"


def _words(spec: Spec, field: str) -> str:
    nested, _, key = field.rpartition(".")
    if nested:
        return f"{key} {compact((spec.get(nested) or {}).get(key))}"
    with_value, without = SETTING[field]
    if spec.get(field) is None:
        return without
    if (field, spec[field]) == ("norm", "none"):
        return "no normalisation"
    text = compact(spec[field])
    return with_value.format(Path(text.rpartition(":")[2]).name if field == "data" else text)


def _differs(values: Iterable[Any]) -> bool:
    listed = list(values)
    return any(value != listed[0] for value in listed)
