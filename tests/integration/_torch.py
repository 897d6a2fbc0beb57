"""Objects for torch datasets: a tree of small files, and tar shards in the layout of webdataset."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any, Final

COUNT: Final = 120
SHARDS: Final = 3
SAMPLES: Final = 20


def name_of(number: int) -> str:
    """Return the name of an object, in the order in which a walk comes to it."""
    return f"part{number * 4 // COUNT}/{number:04}"


def content(number: int) -> bytes:
    """Return the bytes of an object, no two alike, some of several blocks of 64 KiB."""
    return b"%08d" % number * (20_000 if number % 50 == 49 else 100 + number)


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a tar archive of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sample_of(shard: int, number: int) -> dict[str, Any]:
    """Return a sample of a shard, as it comes out."""
    return {
        "__key__": f"a.b/{shard}-{number}",
        "__url__": f"d/{shard}.tar",
        "jpg": b"jpg of %d-%d " % (shard, number) * (number * 40),
        "seg.png": b"",
        "cls": b"%d" % number,
    }


def shard(number: int) -> bytes:
    """Return a tar shard."""
    return tar_of(
        (f"{sample['__key__']}.{extension}", data)
        for sample in (sample_of(number, each) for each in range(SAMPLES))
        for extension, data in sample.items()
        if not extension.startswith("__")
    )
