"""Patterns of paths, as loads take them.

A pattern is held against a path part by part: ``*``, ``?`` and ``[...]`` as in fnmatch, none of them across
a slash, case told apart, and a leading dot nothing special. A part that is ``**`` stands for any number of
parts, none included: ``**/*.jpg`` is every jpg at any depth, ``train/**`` everything below train.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

_ANY_DEPTH: Final = "**"
_MAGIC: Final = re.compile(r"[*?\[]")


class Glob:
    """One pattern. Threads: any."""

    def __init__(self, pattern: str) -> None:
        """Compile the pattern. Raises: ValueError (empty, absolute, or a part is empty, ``.`` or ``..``)."""
        parts = pattern.split("/")
        if {"", ".", ".."} & set(parts) or "\0" in pattern:
            raise ValueError(
                f"glob {pattern!r}: a pattern is relative to what is loaded, for example '**/*.jpg'; none of "
                "its parts is empty, '.' or '..'"
            )
        plain = 0
        while plain < len(parts) - 1 and not _MAGIC.search(parts[plain]):
            plain += 1
        self.root: Final = "/".join(parts[:plain])
        self._parts: Final = [None if part == _ANY_DEPTH else _compile(part) for part in parts]

    def matches(self, path: str) -> bool:
        """Say whether the whole path matches."""
        return _match(self._parts, path.split("/"))


def _compile(part: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(part))


def _match(patterns: Sequence[re.Pattern[str] | None], names: Sequence[str]) -> bool:
    """Match parts, going back to the last ``**`` alone: what an earlier one took need not be tried again."""
    at, name_at, star_at, star_name_at = 0, 0, -1, 0
    while name_at < len(names):
        pattern = patterns[at] if at < len(patterns) else None
        if at < len(patterns) and pattern is None:
            star_at, star_name_at = at, name_at
            at += 1
        elif pattern is not None and pattern.match(names[name_at]):
            at += 1
            name_at += 1
        elif star_at >= 0:
            star_name_at += 1
            at, name_at = star_at + 1, star_name_at
        else:
            return False
    # Any number of parts may be none.
    return all(pattern is None for pattern in patterns[at:])
