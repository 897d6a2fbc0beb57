"""The demo's data set: seeded random files and shards in a bucket folder, and a manifest of their SHA-256s.

Made once and kept under build/demo; the manifest is written last, so that a set that was cut short is made
again, and its folder is named after the workload, so that another workload gets another set.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUCKET = "training"
FILES_PER_FOLDER = 1_000
SIZES = (  # what of the workload makes the set
    "seed",
    "file_count",
    "file_bytes_min",
    "file_bytes_max",
    "shard_count",
    "shard_bytes",
    "sharded_in_pieces",
    "piece_bytes",
)


@dataclass(frozen=True)
class Sample:
    """One read of the training loop: a file, a piece of a shard or a whole shard."""

    key: str
    offset: int
    length: int
    sha256: str
    whole: bool


@dataclass(frozen=True)
class Dataset:
    """Where the buckets lie and what a reader reads of them in one epoch."""

    served_folder: Path
    samples: list[Sample]

    @property
    def total_bytes(self) -> int:
        return sum(sample.length for sample in self.samples)


def make(folder: Path, load: dict[str, Any], on_bytes: Callable[[int], None]) -> Dataset:
    """Return the data set of this workload, making it if it is not there; on_bytes hears of progress."""
    sizes = {name: load[name] for name in SIZES}
    digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:12]
    home = folder / f"data-{digest}"
    manifest = home / "manifest.json"
    if not manifest.exists():
        shutil.rmtree(home, ignore_errors=True)
        samples = _write(home / "s3" / BUCKET, load, on_bytes)
        unfinished = home / "manifest.part"
        unfinished.write_text(json.dumps([asdict(sample) for sample in samples]))
        unfinished.rename(manifest)
    return Dataset(home / "s3", [Sample(**entry) for entry in json.loads(manifest.read_text())])


def total_bytes_about(load: dict[str, Any]) -> int:
    """Estimate the bytes of the set, for a progress bar."""
    mean = (load["file_bytes_min"] + load["file_bytes_max"]) // 2
    return int(load["file_count"] * mean + load["shard_count"] * load["shard_bytes"])


def _write(bucket: Path, load: dict[str, Any], on_bytes: Callable[[int], None]) -> list[Sample]:
    source = random.Random(load["seed"])
    samples = []
    for number in range(load["file_count"]):
        data = source.randbytes(source.randint(load["file_bytes_min"], load["file_bytes_max"]))
        key = f"files/{number // FILES_PER_FOLDER:02}/{number:06}.bin"
        _store(bucket / key, data)
        samples.append(_sample(key, data, 0, len(data)))
        on_bytes(len(data))
    for number in range(load["shard_count"]):
        data = source.randbytes(load["shard_bytes"])
        key = f"shards/{number:03}.bin"
        _store(bucket / key, data)
        step = load["piece_bytes"] if number < load["sharded_in_pieces"] else len(data)
        samples += [_sample(key, data, offset, step) for offset in range(0, len(data), step)]
        on_bytes(len(data))
    return samples


def _store(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _sample(key: str, data: bytes, offset: int, length: int) -> Sample:
    piece = memoryview(data)[offset : offset + length]
    return Sample(key, offset, len(piece), hashlib.sha256(piece).hexdigest(), len(piece) == len(data))
