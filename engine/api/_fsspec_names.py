"""Names in two spaces: as fsspec's users write a path, and as the cache does.

A path is ``dataset/rest``, or the URI of an under storage, ``s3://bucket/rest``, which means the dataset that
is attached there. With a chained URL, ``forebay::s3://bucket/rest``, fsspec hands over ``bucket/rest``, and
the protocol once. What is listed below a path is named as that path was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from forebay.cache import Cache
from forebay.errors import not_found

_MARK: Final = "://"
_LOCAL: Final = "file://"


@dataclass(frozen=True, slots=True)
class Place:
    """A path of the cache, and what its first part is called by whoever asked.

    path is "" for the list of datasets.
    """

    path: str
    asked_root: str = ""
    cache_root: str = ""

    def asked(self, path: str) -> str:
        """Return the name of a path of the cache, this one or one below, as it was asked for."""
        return f"{self.asked_root}{path[len(self.cache_root) :]}" if self.cache_root else path


def place_of(cache: Cache, path: str, target_protocol: str | None) -> Place:
    """Return what a path means; target_protocol is that of a chained URL. Raises: NotFound (no dataset)."""
    if _MARK in path:
        protocol, _, rest = path.partition(_MARK)
        return _attached_at(cache, protocol, rest, path)
    if target_protocol is not None:
        return _attached_at(cache, target_protocol, path, path)
    return Place(path)


def dataset_of(path: str) -> str:
    """Return the name of the dataset that a path of the cache lies in, whatever version of it is meant."""
    return path.partition("/")[0].partition("@")[0]


def is_same(cache: Cache, path: str, other: str) -> bool:
    """Say whether two paths of the cache are one of an under storage, by whatever datasets."""
    first, second = (_in_storage(cache, each) for each in (path, other))
    if "/".join(first) == "/".join(second):
        return True
    local = _local_file(*second)
    return local is not None and is_local_file(cache, path, local)


def is_local_file(cache: Cache, path: str, local: str | os.PathLike[str]) -> bool:
    """Say whether an object of the cache is this local file, by whatever links."""
    place = _local_file(*_in_storage(cache, path))
    try:
        return place is not None and os.path.samefile(place, local)
    except OSError:
        # There are not both of them.
        return False


def _in_storage(cache: Cache, path: str) -> tuple[str, str]:
    """Return the URI of a path's dataset, or of one that is not attached its name, and the path in it."""
    uris = {dataset.name: dataset.uri.rstrip("/") for dataset in cache.datasets()}
    return uris.get(dataset_of(path), dataset_of(path)), path.partition("/")[2]


def _local_file(uri: str, path: str) -> str | None:
    """Return where on this machine an object lies; None: elsewhere."""
    if not uri.startswith(_LOCAL):
        return None
    folder = uri.removeprefix(_LOCAL).removeprefix("localhost")
    return f"{unquote(folder, errors='surrogateescape')}/{path}"


def _attached_at(cache: Cache, protocol: str, rest: str, asked: str) -> Place:
    """Find the dataset with the longest URI at or above the path; of equal ones the first by name."""
    bare = rest.strip("/")
    found, found_at = None, ""
    for dataset in cache.datasets():
        scheme, _, at = dataset.uri.partition(_MARK)
        at = at.strip("/")
        is_above = bare == at or not at or bare.startswith(f"{at}/")
        if scheme == protocol and is_above and (found is None or len(at) > len(found_at)):
            found, found_at = dataset.name, at
    if found is None:
        uri = f"{protocol}{_MARK}{rest}"
        raise not_found(uri, "no dataset is attached there, nor above it; attach it first (forebay attach)")
    below = bare[len(found_at) :].strip("/")
    if not below:
        return Place(found, asked, found)
    return Place(f"{found}/{below}", asked.removesuffix(f"/{below}"), found)
