"""Bytes that one frontend has brought are hits in every other: they have one cache, and none of their own.

Another frontend joins by a function in FRONTENDS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fsspec
import pytest
from fsspec.implementations.webhdfs import WebHDFS

from forebay.api.hdfs import FileSystem
from forebay.api.torch import IterableDataset, MapDataset, loader
from forebay.cache import Cache
from tests._gateway import serving
from tests.fuse.conftest import Mounting

Contents = dict[str, bytes]


def by_mount(cache: Cache, mounted: Mounting) -> Contents:
    with mounted() as mount:
        files = [path for path in sorted(mount.path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(mount.path)): path.read_bytes() for path in files}


def by_python(cache: Cache, mounted: Mounting) -> Contents:
    paths = [f"{folder}/{name}" for folder, _, names in cache.walk("d") for name in names]
    return {path[2:]: bytes(cache.read(path)) for path in paths}


def named(path: str, data: Any) -> tuple[str, bytes]:
    return path[2:], bytes(data)


def by_torch_workers(cache: Cache, mounted: Mounting) -> Contents:
    dataset = MapDataset.from_prefix(cache, "d", decode=named)
    batches = loader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork", collate_fn=list)
    return dict(sample for batch in batches for sample in batch)


def by_torch_stream(cache: Cache, mounted: Mounting) -> Contents:
    return dict(IterableDataset.from_prefix(cache, "d", decode=named, shuffle=True))


def by_fsspec(cache: Cache, mounted: Mounting) -> Contents:
    fs = fsspec.filesystem("forebay", cache_dir=cache.path)
    return {path[2:]: data for path, data in fs.cat(fs.find("d")).items()}


def by_hdfs(cache: Cache, mounted: Mounting) -> Contents:
    fs = FileSystem(cache)
    waiting, found = ["/d"], {}
    while waiting:
        for status in fs.list_status(waiting.pop()):
            if status.is_directory:
                waiting.append(status.path)
            else:
                with fs.open(status.path) as stream:
                    found[status.path[3:]] = stream.read()
    return found


def by_webhdfs(cache: Cache, mounted: Mounting) -> Contents:
    with serving(cache) as gateway:
        fs = WebHDFS("127.0.0.1", port=gateway.port, skip_instance_cache=True)
        return {path[3:]: fs.cat_file(path) for path in fs.find("/d")}


FRONTENDS: dict[str, Callable[[Cache, Mounting], Contents]] = {
    "mount": by_mount,
    "python": by_python,
    "torch workers": by_torch_workers,
    "torch stream": by_torch_stream,
    "fsspec": by_fsspec,
    "hdfs": by_hdfs,
    "webhdfs": by_webhdfs,
}


@pytest.mark.parametrize("first", FRONTENDS)
def test_what_one_frontend_has_brought_is_a_hit_in_every_other(
    first: str, attached: Cache, mounted: Mounting
) -> None:
    found = FRONTENDS[first](attached, mounted)
    assert len(found) == 4
    brought = attached.status()["counters"]["source_bytes"]
    assert brought == sum(map(len, found.values()))
    for name, read in FRONTENDS.items():
        assert read(attached, mounted) == found, name
    assert attached.status()["counters"]["source_bytes"] == brought
