"""The table of `python -m benchmarks.gpu`, out of the JSON files of its parts."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def markdown(folder: Path, states: Mapping[str, str]) -> str:
    """All numbers of the parts that are done, and the names of the others."""
    parts = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    }
    return "\n".join(
        [
            *_environment(parts),
            *_costs(parts),
            *_training(parts),
            *_peers(parts),
            *_study(parts),
            *_rest(states),
        ]
    )


def _environment(parts: Mapping[str, Any]) -> Iterator[str]:
    if at := parts.get("environment"):
        card, versions = at["card"], at["versions"]
        memory = f", {card['bytes'] / 2**30:.0f} GiB" if "bytes" in card else ""
        yield f"# {card['name']}{memory}\n"
        yield f"python {versions['python']}, torch {versions['torch']}, data: {at['data']}\n"
    if tests := parts.get("tests"):
        yield f"Tests that need a card: {tests['summary']}\n"
        yield from (f"- {line}" for line in tests["failed"])


def _costs(parts: Mapping[str, Any]) -> Iterator[str]:
    rows = [part for name, part in parts.items() if name.startswith("cost-")]
    if rows:
        times = ("gradient s", "product s", "reading s (products)", "evaluation s", "images/s", "peak GiB")
        yield f"| model, weights | images | {' | '.join(times)} |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        t, read = row["seconds"], f"{row['seconds']['reading']:.3g} ({row['products']:g})"
        peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f}"
        yield (
            f"| {row['model']}, {row['weights']:,} | {row['images']:,} | {t['gradient']:.3g} "
            f"| {t['product']:.3g} ({row['mode']}) | {read} | {t['evaluation']:.3g} "
            f"| {row['images_per_second']:.0f} | {peak} |"
        )


def _training(parts: Mapping[str, Any]) -> Iterator[str]:
    rows = [part for name, part in parts.items() if name.startswith("training-")]
    if rows:
        yield "\n| model | precision | layout | CUDA graphs | ms a step | images/s |"
        yield "|---|---|---|---|---:|---:|"
    for row in rows:
        yield (
            f"| {row['model']} | {row['precision']} | {row['layout']} | {row['graphs']} "
            f"| {1e3 * row['step_seconds']:.3g} | {row['images_per_second']:.0f} |"
        )


def _peers(parts: Mapping[str, Any]) -> Iterator[str]:
    rows = [part for name, part in parts.items() if name.startswith("peers-")]
    if rows:
        yield "\n| model, images in one batch | tool | seconds a reading | gradients a reading | error |"
        yield "|---|---|---:|---:|---:|"
    for row in rows:
        for tool, numbers in row["tools"].items():
            head = f"| {row['model']}, {row['images']:,} | {tool} |"
            if "failed" in numbers:
                yield f"{head} failed: {numbers['failed']} | | |"
                continue
            gradients = numbers["seconds"] / row["gradient_seconds"]
            yield f"{head} {numbers['seconds']:.3g} | {gradients:.1f} | {numbers['error']:.0e} |"


def _study(parts: Mapping[str, Any]) -> Iterator[str]:
    if run := parts.get("study"):
        share = run["reading_seconds"] / run["seconds"]
        yield f"\nA run of bn-cifar10: {run['steps']:,} steps and {run['records']} records in"
        yield f"{run['seconds']:.0f} s, {share:.0%} of it in readings; {run['status']} on {run['device']}."


def _rest(states: Mapping[str, str]) -> Iterator[str]:
    if rest := [f"{name} ({state})" for name, state in states.items() if not state.startswith("done")]:
        yield f"\nUnfinished: {', '.join(rest)}."
    yield ""
