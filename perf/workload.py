"""Workloads as data: perf/workloads/NAME.toml, a table of sizes and seeds, and what `quick` changes in it."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "workloads"


def load(name: str, quick: bool = False) -> dict[str, Any]:
    """Read a workload; with `quick` the values of its [quick] table replace those of the same name."""
    with (FOLDER / f"{name}.toml").open("rb") as file:
        table = tomllib.load(file)
    shrunk = table.pop("quick", {})
    unknown = shrunk.keys() - table.keys()
    if unknown:
        raise ValueError(f"{name}.toml: [quick] names what the workload does not have: {sorted(unknown)}")
    return table | shrunk if quick else table


def keys(count: int, seed: int, length_bytes: int = 16) -> list[bytes]:
    """Make `count` random keys, the same for the same seed in every process."""
    data = random.Random(seed).randbytes(count * length_bytes)
    return [data[start : start + length_bytes] for start in range(0, len(data), length_bytes)]


def shuffled(items: list[bytes], seed: int) -> list[bytes]:
    """Return the same objects in a random order."""
    order = items[:]
    random.Random(seed).shuffle(order)
    return order
