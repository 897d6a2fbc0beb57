"""The paths of a torch dataset: found below a prefix or in a manifest, and kept packed.

Strings by the million would be copied into every forked worker, page by page, as their reference counts are
touched, and take several times the bytes of the paths; one buffer with offsets does neither.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, overload

from forebay.cache.loads.glob import Glob
from forebay.errors import ConfigError

if TYPE_CHECKING:
    from forebay.cache import Cache


class PackedPaths(Sequence[str]):
    """Paths that never change, in some bytes more each than they are long. Pickles. Threads: any."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Pack the paths, in their order. Raises: TypeError (one path by itself, or what is no path)."""
        if isinstance(paths, str):
            raise TypeError(f"paths: expected an iterable of paths, not the one path {paths!r}")
        text, ends = bytearray(), array("Q")
        for path in paths:
            if not isinstance(path, str):
                raise TypeError(f"paths: expected paths as str, got {type(path).__name__} at {len(ends)}")
            text += path.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        self._text: Final = bytes(text)
        self._ends: Final = ends

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return a path, or those of a slice. Raises: IndexError."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        count = len(self._ends)
        position = index + count if index < 0 else index
        if not 0 <= position < count:
            raise IndexError(f"sample {index} of {count}")
        start = self._ends[position - 1] if position else 0
        return self._text[start : self._ends[position]].decode("utf-8", "surrogateescape")


def paths_below(cache: Cache, prefix: str, glob: str | None) -> Iterator[str]:
    """Yield the paths of all objects below a directory, in the order of `Cache.walk`.

    glob: only those whose path from the prefix on matches, as for ``Cache.load``. Raises, while it is
    iterated: as `Cache.walk`; ConfigError (a bad pattern); ValueError (there is no such object).
    """
    root = prefix.rstrip("/")
    matches = _matcher(glob)
    found = False
    for directory, _, names in cache.walk(root):
        for name in names:
            path = f"{directory}/{name}"
            if matches is None or matches.matches(path[len(root) + 1 :]):
                found = True
                yield path
    if not found:
        raise ValueError(f"{prefix}: no object below it{'' if glob is None else f' matches {glob!r}'}")


def paths_listed(cache: Cache, name: str, version: str | None, glob: str | None) -> Iterator[str]:
    """Yield the paths that a manifest lists, fixed to it, in its order of access if it has one.

    version: None for the one in use. Raises, while it is iterated: NotAttached, ManifestNotFound;
    ConfigError (none is in use; a bad pattern); ValueError (there is no such object).
    """
    if version is None:
        version = next((each.version for each in cache.manifests(name) if each.is_in_use), None)
        if version is None:
            raise ConfigError(f"dataset {name!r} has no manifest in use; name a version")
    matches = _matcher(glob)
    found = False
    for path in cache.manifest_paths(name, version):
        if matches is None or matches.matches(path):
            found = True
            yield f"{name}@{version}/{path}"
    if not found:
        raise ValueError(
            f"{name}@{version}: it lists no object{'' if glob is None else f' that matches {glob!r}'}"
        )


def _matcher(glob: str | None) -> Glob | None:
    try:
        return None if glob is None else Glob(glob)
    except ValueError as error:
        raise ConfigError(str(error)) from error
