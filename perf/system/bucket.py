"""A bucket of seeded random objects behind a real S3 server, and caches in front of it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import forebay
from forebay.testing.s3 import S3Server

BUCKET = "bench"
DATASET = "bench"
OBJECTS_PER_FOLDER = 500
PIECE_BYTES = 16 << 20


@contextmanager
def served(folder: Path) -> Iterator[S3Server]:
    """Serve the folder's sub-folders as buckets; boto3 and obstore find the keys in the environment."""
    with S3Server(folder) as server:
        os.environ.update(server.environ())
        yield server


def write_objects(folder: Path, count: int, size_bytes: int, seed: int, prefix: str = "") -> list[str]:
    """Write so many objects, no two alike, into the bucket; returns their keys."""
    data = random.Random(seed).randbytes(size_bytes + count)
    keys = [f"{prefix}{number // OBJECTS_PER_FOLDER:02}/{number:06}.bin" for number in range(count)]
    for number, key in enumerate(keys):
        path = folder / BUCKET / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[number : number + size_bytes])
    return keys


def write_object(folder: Path, key: str, size_bytes: int, seed: int) -> None:
    """Write one large object into the bucket."""
    source = random.Random(seed)
    path = folder / BUCKET / key
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for offset in range(0, size_bytes, PIECE_BYTES):
            file.write(source.randbytes(min(PIECE_BYTES, size_bytes - offset)))


@contextmanager
def fresh_cache(
    folder: Path, quota_bytes: int, endpoint_url: str, medium: Literal["MEM", "SSD"] = "MEM"
) -> Iterator[forebay.Cache]:
    """Give an empty cache below the folder with the bucket attached, and remove it afterwards.

    It has asked the bucket something before: its clients are made and connected, as those of its rivals are.
    """
    place = Path(tempfile.mkdtemp(prefix="cache-", dir=folder))
    try:
        tiers = [forebay.Tier(str(place / "tier"), quota_bytes, medium)]
        with forebay.open(place / "cache", tiers=tiers) as cache:
            cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=endpoint_url, max_age=None)
            cache.exists(f"{DATASET}/absent")
            yield cache
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_same(view: forebay.View, path: Path) -> None:
    """Compare what was read with the object itself. Raises: RuntimeError (a wrong byte)."""
    with path.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").digest()
    if hashlib.sha256(view).digest() != expected:
        raise RuntimeError(f"{path.name}: the cache returned other bytes than the bucket holds")
