"""Measure beside every optimizer of torch, timm and pytorch-optimizer, each by its name.

Each takes ten steps on a small network with BatchNorm. Then `measure` reads the sharpness: λ₁ must be that of
the same weights without an optimizer, and weights, gradients, buffers and the optimizer's state must be the
same bits afterwards.

    python results/optimizers/by_name.py      # writes by_name.json and README.md; needs pytorch-optimizer
    python results/optimizers/by_name.py NAME ...   # measures these rows again
"""

import contextlib
import functools
import inspect
import json
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_optimizer
import timm.optim
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from optim_family import measure
from optim_family.errors import one_line

HERE = Path(__file__).parent
STEPS, RTOL = 10, 1e-4
PACKAGES = ("torch", "timm", "pytorch-optimizer")
NO_METRIC = "the readings have no threshold: there is no metric: "


def constructors() -> Iterator[tuple[str, Callable[[nn.Module], Any]]]:
    """Name and constructor of every optimizer."""
    for name, kind in inspect.getmembers(torch.optim, inspect.isclass):
        if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer:
            yield f"torch:{name}", lambda model, kind=kind: kind(model.parameters())
    for name in timm.optim.list_optimizers():
        yield f"timm:{name}", lambda model, name=name: timm.optim.create_optimizer_v2(model, name, lr=1e-3)
    for name in pytorch_optimizer.get_supported_optimizers():
        yield f"pytorch-optimizer:{name}", functools.partial(from_pytorch_optimizer, name)


def from_pytorch_optimizer(name: str, model: nn.Module) -> Any:
    """Some take groups that say which are for Muon, some the model itself."""
    kind, groups = (
        pytorch_optimizer.load_optimizer(name),
        [{"params": [*model.parameters()], "use_muon": True}],
    )
    for first in (model.parameters(), groups):
        with contextlib.suppress(AttributeError, RuntimeError):
            return kind(first)
    return kind(model)


def row(name: str, make: Callable[[nn.Module], Any]) -> dict[str, Any]:
    """What came of one optimizer."""
    torch.manual_seed(0)
    others = "Muon" not in name  # torch's takes matrices only
    model = nn.Sequential(
        nn.Linear(6, 8, bias=others), nn.BatchNorm1d(8, affine=others), nn.Tanh(), nn.Linear(8, 3, bias=False)
    )
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = cross_entropy(model(x), y)
        value.backward(create_graph="hessian" in name or "sophia" in name)
        return value

    try:
        optimizer = make(model)
        getattr(optimizer, "train", lambda: None)()
        for _ in range(STEPS):
            optimizer.step(loss)
        getattr(optimizer, "eval", lambda: None)()  # schedule-free ones are measured at the average
        loss().detach()
    except Exception as error:
        return {"optimizer": name, "step fails": f"{type(error).__name__}: {one_line(error)[:160]}"}
    before, chunks = state(model, optimizer), [(x, y)]
    expected = measure(model, cross_entropy, chunks, views=("raw",), rtol=RTOL)["raw"].value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = functools.partial(measure, model, cross_entropy, chunks, optimizer, rtol=RTOL)
        readings, reason = read(views=("raw",)), ""
        try:
            readings |= read(views=("preconditioned",))
        except ValueError as error:
            reason = one_line(error)
            with contextlib.suppress(ValueError):
                readings |= read(views=("generalized",))
    return {
        "optimizer": name,
        "raw": readings["raw"].value,
        "without the optimizer": expected,
        "preconditioned": readings["preconditioned"].value if "preconditioned" in readings else None,
        "generalized": readings["generalized"].value if "generalized" in readings else None,
        "threshold": next(reversed(readings.values())).threshold,
        "no metric": reason.removeprefix("there is no metric: ").removesuffix(
            "; measure raw or spherical instead."
        ),
        "warnings": sorted({str(w.message) for w in caught if w.category is UserWarning}),
        "changed": state(model, optimizer) != before,
    }


def state(model: nn.Module, optimizer: Any) -> Any:
    """Everything that measuring must not change."""
    gradients = [p.grad for p in model.parameters()]
    return bits([*model.state_dict().values(), *gradients, *optimizer.state.values()])


def bits(value: Any) -> Any:
    """A copy that can be compared: tensors as bytes, sequences as lists, other objects as their type."""
    if isinstance(value, torch.Tensor):
        dense = value.detach().to_dense() if value.is_sparse else value.detach()
        return dense.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""
    if isinstance(value, dict):
        return [(str(key), bits(entry)) for key, entry in value.items()]
    if isinstance(value, list | tuple | deque):
        return [bits(entry) for entry in value]
    return value if isinstance(value, int | float | str | None) else type(value).__name__


def page(rows: list[dict[str, Any]]) -> str:
    """README.md."""
    measured = [r for r in rows if "raw" in r]
    off = max(abs(r["raw"] / r["without the optimizer"] - 1) for r in measured)
    counts = Counter(r["optimizer"].partition(":")[0] for r in rows)
    lines = [
        "# Every optimizer by its name",
        "",
        " ".join((__doc__ or "").split("\n\n")[1].split()),
        "",
        f"{len(rows)} optimizers: "
        + ", ".join(f"{counts[name]} of {name} {version(name)}" for name in PACKAGES)
        + f". {len(measured)} are measured; {sum(r['threshold'] is not None for r in measured)} of them with "
        f"a metric or a norm and a threshold, the others say why there is no metric. λ₁ is off by "
        f"{off:.0e} at most; {sum(r['changed'] for r in measured)} left something changed. The step of "
        f"{len(rows) - len(measured)} fails before anything is measured.",
        "",
        "| optimizer | λ₁ | in its metric | in its norm, at least | threshold | why there is no metric |",
        "|---|---|---|---|---|---|",
    ]
    for r in measured:
        keys = ("raw", "preconditioned", "generalized", "threshold")
        numbers = [f"{r[key]:.5g}" if r.get(key) else "–" for key in keys]
        lines.append(f"| {r['optimizer']} | {' | '.join(numbers)} | {r['no metric'] or '–'} |")
    lines += ["", "| optimizer | its step fails here |", "|---|---|"]
    lines += [f"| {r['optimizer']} | {r['step fails']} |" for r in rows if "step fails" in r]
    said = sorted({w for r in measured for w in r["warnings"] if not w.startswith(NO_METRIC)})
    lines += ["", "Warnings beside those of a missing metric:", "", *(f"- {w}" for w in said)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """All of them, one after the other."""
    torch.set_num_threads(1)
    again, stored = sys.argv[1:], HERE / "by_name.json"
    known = {r["optimizer"]: r for r in json.loads(stored.read_text())} if again else {}
    rows = [known[n] if again and n not in again else row(n, make) for n, make in constructors()]
    stored.write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "README.md").write_text(page(rows))


if __name__ == "__main__":
    main()
