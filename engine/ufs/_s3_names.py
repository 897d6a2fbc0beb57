"""Keys of a bucket: which of them a path can name, and which are hidden."""

from __future__ import annotations

from typing import Final, NamedTuple

_NO_PARTS: Final = frozenset({"", ".", ".."})


class Key(NamedTuple):
    """An object in a listing, by its whole key."""

    key: str
    size: int
    modified_s: int
    version: str


def is_path(key: str) -> bool:
    """Say whether a path can name what has this key below the attached prefix."""
    if "\0" in key:
        return False
    # A key with neither of these has no such part; most are told by that.
    if "//" not in key and "./" not in key and not key.endswith((".", "/")) and not key.startswith("/"):
        return key != ""
    return _NO_PARTS.isdisjoint(key.split("/"))


def is_name(name: str) -> bool:
    """Say whether a path can have this part: a slash in it comes from a server without delimiters."""
    return name not in _NO_PARTS and "/" not in name and "\0" not in name


def is_marker(key: str, size: int) -> bool:
    """Say whether the object only marks a directory, as consoles make them: hidden without a loss."""
    return size == 0 and (not key or key.endswith("/"))
