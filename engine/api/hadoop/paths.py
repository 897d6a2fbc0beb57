"""Paths as Hadoop writes them: absolute, in one tree of which datasets are the first level."""

from __future__ import annotations

import re
from typing import Final

# Nothing to be done: one slash before each part, and no part "." or "..".
_NORMALIZED: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0]+)+")

SCHEMES: Final = ("forebay", "hdfs", "webhdfs", "swebhdfs")


def normalized(path: str) -> str:
    """Return an absolute path without repeated slashes or one at the end: "/" or "/dataset/a/b".

    A URI of one of SCHEMES stands for its path. Raises: ValueError (relative, another scheme, NUL, a part
    ``.`` or ``..``).
    """
    if not isinstance(path, str):
        raise TypeError(f"a path is text, not {type(path).__name__}")
    if _NORMALIZED.fullmatch(path):
        return path
    bare = _without_authority(path)
    if not bare.startswith("/"):
        raise ValueError(f"path {path!r} is relative; paths here begin with /dataset")
    if "\0" in bare:
        raise ValueError(f"path {path!r} contains a NUL byte")
    parts = [part for part in bare.split("/") if part]
    for part in parts:
        if part in (".", ".."):
            raise ValueError(f"path {path!r} contains the part {part!r}")
    return "/" + "/".join(parts)


def cache_path(path: str) -> str:
    """Return a normalized path as the cache takes it: "" for the root, else "dataset/a/b"."""
    return path[1:]


def parent_of(path: str) -> str:
    """Return the directory that a normalized path lies in; "/" of the root."""
    return path.rpartition("/")[0] or "/"


def child_of(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"{directory.rstrip('/')}/{name}"


def name_of(path: str) -> str:
    """Return the last part of a normalized path, "" of the root."""
    return path.rpartition("/")[2]


def is_within(path: str, directory: str) -> bool:
    """Say whether a path lies below a directory, both normalized."""
    return directory == "/" or path.startswith(f"{directory}/")


def _without_authority(path: str) -> str:
    scheme, colon, rest = path.partition("://")
    if not colon or "/" in scheme:
        return path
    if scheme not in SCHEMES:
        raise ValueError(f"path {path!r}: scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    if scheme == "forebay":
        # There is no host in it: forebay://dataset/a/b.
        return f"/{rest}"
    return "/" + rest.partition("/")[2]
