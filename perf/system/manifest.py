"""manifest_1m: making a manifest of 1 M objects, and going back to the one before.

Each round is a process of its own. The cache directory lies on a disk file system, so that what is synced is
synced there. Both manifests are made of text, which asks nobody and is the quickest way to make one; what
is measured of it is memory and size. Going back is told with the first look-up after it, which opens the
other manifest, and finds the object as that one lists it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forebay
from perf import memory, workload
from perf.fresh import in_fresh_process
from perf.harness import Case, Facts, Outcome, within_limit
from perf.places import disk_folder, memory_folder

DATASET = "files"
VERSIONS = ("v1", "v2")
ROOM_BYTES = 1 << 30
SWITCH_LIMIT_S = 1.0
ENTRY_LIMIT_BYTES = 200
PRIVATE_LIMIT_BYTES = 200 << 20


def run(quick: bool) -> Outcome:
    """Make two manifests and go back and forth, process after process."""
    load = workload.load("manifest", quick)
    with memory_folder(ROOM_BYTES) as texts, disk_folder() as disk:
        for version in VERSIONS:
            _write_text(texts / version, version, load)
        found = [
            in_fresh_process(_measure, disk / f"round{number}", texts, load)
            for number in range(load["rounds"])
        ]
    switches = [seconds for each in found for seconds in each["switches_s"]]
    bars = [
        within_limit(f"rollback and the first stat / {SWITCH_LIMIT_S:g} s", switches, SWITCH_LIMIT_S),
        within_limit(
            f"manifest: bytes an entry / {ENTRY_LIMIT_BYTES}",
            [each["bytes_an_entry"] for each in found],
            ENTRY_LIMIT_BYTES,
        ),
        within_limit(
            "manifest: private bytes while it is made / 200 MiB",
            [each["private_bytes"] for each in found],
            PRIVATE_LIMIT_BYTES,
        ),
    ]
    facts = {"made_per_s": [each["made_per_s"] for each in found]}
    return Outcome("s", {"rollback and stat": switches}, bars, load, facts)


CASE = Case(
    "manifest",
    "two manifests of 1 M objects: made of text, and switched",
    "two commits that are synced, and a look-up",
    run,
)


def _path_of(number: int, load: dict[str, Any]) -> str:
    return f"train/{number // load['objects_a_folder']:06}/image-{number:010}.jpg"


def _size_of(number: int, version: str) -> int:
    return 100_000 + number % 1_000 + VERSIONS.index(version)


def _write_text(path: Path, version: str, load: dict[str, Any]) -> None:
    def lines() -> Iterator[str]:
        for number in range(load["object_count"]):
            name, size = _path_of(number, load), _size_of(number, version)
            yield f'{{"path": "{name}", "size": {size}, "version": "{number * 7_919:032x}"}}\n'

    with path.open("w") as file:
        file.writelines(lines())


def _measure(folder: Path, texts: Path, load: dict[str, Any]) -> Facts:
    """Make both and switch; returns what that took."""
    folder.mkdir()
    (folder / "data").mkdir()
    tiers = [forebay.Tier(str(folder / "tier"), load["quota_bytes"], "SSD")]
    memory.give_back_free_heap()
    before = memory.private_bytes()
    with forebay.open(folder / "cache", tiers=tiers) as cache, memory.watching_peak() as peak:
        cache.attach(DATASET, f"file://{folder / 'data'}", manifest_only=True)
        started = time.perf_counter()
        for version in VERSIONS:
            cache.import_manifest(DATASET, version, texts / version, use=True)
        seconds = time.perf_counter() - started
        private_bytes = peak[0] - before
        switches = [_switch(cache, load) for _ in range(load["switches"])]
        (file,) = (folder / "cache").rglob(f"*-{VERSIONS[0]}.lmdb")
        return {
            "switches_s": switches,
            "private_bytes": private_bytes,
            "bytes_an_entry": file.stat().st_size / load["object_count"],
            "made_per_s": len(VERSIONS) * load["object_count"] / seconds,
        }


def _switch(cache: forebay.Cache, load: dict[str, Any]) -> float:
    """Go back and look something up; returns the seconds. Raises: RuntimeError (it is of another version)."""
    number = load["object_count"] // 2
    started = time.perf_counter()
    version = cache.rollback(DATASET)
    status = cache.stat(f"{DATASET}/{_path_of(number, load)}")
    seconds = time.perf_counter() - started
    if status.size != _size_of(number, version):
        raise RuntimeError(f"{status} is not of {version}")
    return seconds
