"""The policies of one dataset, and what holds for a path by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from forebay.cache.policies.policy import NOTHING, Policy

_DIRECTORIES_KEPT: Final = 1_024


class Rules:
    """What is said of the paths of one dataset; never changes. Threads: any.

    The deepest word on each thing holds, so that a path may be pinned by one level and have its tier from
    another. A policy of ``a/b`` is one of the object ``a/b`` and of all that lies below a directory of that
    name, and says nothing of ``a/bc``.
    """

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        """Take what is said, by path; "" is the dataset itself."""
        self.policies: Final = dict(policies)
        # What is in one directory is asked for together.
        self._inside: Final = lru_cache(_DIRECTORIES_KEPT)(self._resolve)

    def of(self, path: str) -> Policy:
        """Return what holds for a path, every field of it said somewhere or None."""
        above = self._inside(path.rpartition("/")[0]) if path else NOTHING
        own = self.policies.get(path)
        return above if own is None else own.over(above)

    def at_and_below(self, path: str) -> Iterator[str]:
        """Yield the paths that something is said of, from this one on downwards."""
        for each in self.policies:
            if not path or each == path or each.startswith(f"{path}/"):
                yield each

    def _resolve(self, directory: str) -> Policy:
        """Return what holds for all in a directory, from the dataset itself downwards."""
        found = self.policies.get("", NOTHING)
        end = 0
        while directory and end != len(directory):
            end = directory.find("/", end + 1)
            end = len(directory) if end < 0 else end
            own = self.policies.get(directory[:end])
            found = found if own is None else own.over(found)
        return found


NO_RULES: Final = Rules({})
