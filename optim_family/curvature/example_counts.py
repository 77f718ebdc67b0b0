"""The number of examples of each chunk, which is its weight in the loss.

The mean loss over all chunks is Σ (n_c/n) L_c. The shapes of a batch do not always determine n_c: labels may
have the time axis first, be lists, or contain tokens that the loss ignores. If the possible counts give
different weights, the caller must choose one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

Pair = tuple[Any, Any]
Count = Callable[[Any, Any], float]

# The label that torch's losses ignore by default.
IGNORED: Final = -100
CHOOSE: Final = "give each chunk as (x, y, n), or count=, a function of (x, y) that returns n"


def pairs_and_counts(
    chunks: Sequence[Any], loss_fn: Callable[..., Any], count: Count | None
) -> tuple[list[Pair], list[float]]:
    """The pairs (x, y), and n_c for each of them.

    Args:
        chunks: pairs (x, y), or triples (x, y, n).
        loss_fn: refused with several chunks if its `reduction` is "sum".
        count: n_c of a pair.

    Raises:
        ValueError: a chunk is neither, the counts are ambiguous, or the loss sums over the examples.
    """
    pairs = [_pair(chunk, index) for index, chunk in enumerate(chunks)]
    if not pairs:
        raise ValueError("there is nothing to measure on: `chunks` gave no (x, y) pair.")
    stated = [float(chunk[2]) for chunk in chunks if len(chunk) == 3]
    if stated and len(stated) < len(pairs):
        raise ValueError(
            f"{len(stated)} of {len(pairs)} chunks say how many examples they have: all or none."
        )
    if len(pairs) > 1 and not stated and not count and _class_weights(loss_fn) is not None:
        raise ValueError(
            "loss_fn has weights of classes, so that each chunk counts by the weights of its labels: give "
            "count=lambda x, y: weight[y].sum()."
        )
    counts = stated or ([float(count(x, y)) for x, y in pairs] if count else _inferred(pairs))
    if not (sum(counts) > 0 and min(counts) >= 0):
        raise ValueError(
            f"there is nothing to measure on: the chunks hold no examples (counts {_list(counts)})."
        )
    if len(pairs) > 1 and "sum" in (getattr(loss_fn, "reduction", None), _keyword(loss_fn)):
        raise ValueError("loss_fn sums over the examples; several chunks need their mean: reduction='mean'.")
    return pairs, counts


def mismatch(x: Any, y: Any) -> str:
    """Why a loss of x and y fails: no tensors, or different lengths; empty if neither is so."""
    for name, part in (("x", x), ("y", y)):
        if not isinstance(part, Tensor) and hasattr(part, "__array__"):
            return f"{name} is a {type(part).__name__}: give a tensor, torch.as_tensor({name})"
    first = next((t for t in _tensors(x) if t.ndim), None)
    if first is None or not isinstance(y, Tensor) or not y.ndim or len(first) == len(y):
        return ""
    return f"x has {len(first)} examples and y {len(y)}: give each input its target"


def _pair(chunk: Any, index: int) -> Pair:
    rule = "`chunks` is a list of pairs (x, y), or of (x, y, n) with n examples"
    if isinstance(chunk, Mapping):
        keys = ", ".join(map(str, chunk))
        raise ValueError(f"{rule}; chunk {index} is a dictionary of {keys}: say which are x and which is y.")
    if not isinstance(chunk, tuple | list) or isinstance(chunk, PackedSequence):
        raise ValueError(f"{rule}; got a {type(chunk).__name__}: write [(x, y)].")
    if len(chunk) == 3 and (isinstance(chunk[2], int | float) and not isinstance(chunk[2], bool)):
        return chunk[0], chunk[1]
    if len(chunk) != 2:
        raise ValueError(f"{rule}; chunk {index} has {len(chunk)} parts.")
    return chunk[0], chunk[1]


def _inferred(pairs: Sequence[Pair]) -> list[float]:
    """The one reading of the lengths, or the one that agrees with x."""
    readings = [_readings(x, y) for x, y in pairs]
    names = [name for name in readings[0] if all(name in reading for reading in readings)]
    columns = {name: [reading[name] for reading in readings] for name in names}
    if len(pairs) == 1:  # its weight is 1 whatever the count, unless it is empty
        counts = [*readings[0].values()] or [1.0]
        return [min(counts) and counts[len(counts) > 1]]
    if not columns:
        raise ValueError(f"y has no length, so that the examples cannot be counted: {CHOOSE}.")
    labels = {name: column for name, column in columns.items() if name != "the length of x"}
    if len({_shares(column) for column in labels.values()}) == 1:
        return next(iter(labels.values()))
    agreeing = [c for name, c in labels.items() if c == columns.get("the length of x") and "list" in name]
    if len(agreeing) == 1:
        return agreeing[0]
    if not labels:
        return columns["the length of x"]
    counted = "; ".join(f"{name}: {_list(column)}" for name, column in labels.items())
    raise ValueError(f"the examples of the chunks can be counted in several ways ({counted}): {CHOOSE}.")


def _readings(x: Any, y: Any) -> dict[str, float]:
    """What n may be, by what it is called."""
    counts: dict[str, float] = {}
    first = next((t for t in _tensors(x) if t.ndim), None)
    if first is not None:
        counts["the length of x"] = float(len(first))
    if isinstance(y, PackedSequence):
        counts["the sequences in y"] = float(y.batch_sizes[0])
    elif isinstance(y, Tensor):
        counts |= _of_labels(y)
    elif isinstance(y, Mapping):
        counts |= {
            f"the length of {key!r}": float(len(t))
            for key, t in y.items()
            if isinstance(t, Tensor) and t.ndim
        }
    elif isinstance(y, tuple | list) and any(isinstance(part, Tensor) for part in y):
        counts["the length of the list y"] = float(len(y))
        if isinstance(y[0], Tensor) and y[0].ndim:
            counts["the length of the tensors in the list y"] = float(len(y[0]))
    elif hasattr(y, "__len__"):
        counts["the length of y"] = float(len(y))
    return counts


def _of_labels(y: Tensor) -> dict[str, float]:
    if not y.ndim:
        return {}
    counts = {"the length of y": float(len(y))}
    if y.ndim > 1:
        counts["the numbers in y"] = float(y.numel())
    if not y.is_floating_point() and not y.is_complex():
        counts[f"the labels other than {IGNORED}"] = float((y != IGNORED).sum())
    return counts


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, PackedSequence):
        return [x.batch_sizes[:1].new_empty(int(x.batch_sizes[0]))]
    parts = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple | list) else ()
    return [t for part in parts for t in _tensors(part)]


def _shares(column: Sequence[float]) -> tuple[float, ...]:
    total = sum(column) or 1.0
    return tuple(round(n / total, 12) for n in column)


def _list(numbers: Sequence[float]) -> str:
    shown = ", ".join(f"{n:g}" for n in numbers[:6])
    return shown + ", …" * (len(numbers) > 6)


def _keyword(loss_fn: Callable[..., Any], name: str = "reduction") -> Any:
    """An argument of a functools.partial."""
    return getattr(loss_fn, "keywords", {}).get(name)


def _class_weights(loss_fn: Callable[..., Any]) -> Tensor | None:
    """Those of a cross-entropy, whose mean they divide."""
    if isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss):
        return loss_fn.weight
    divided = getattr(loss_fn, "func", None) in (functional.cross_entropy, functional.nll_loss)
    weights: Tensor | None = _keyword(loss_fn, "weight") if divided else None
    return weights
