"""Directories read page by page, for whoever lists one that is large and holds no list of it."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain
from typing import Final

from forebay.cache.datasets import Attached
from forebay.meta import Entries, Entry
from forebay.meta.rows import DIRECTORY, OBJECT, name_bytes

# The object before the directory of the same name.
_KINDS: Final = (OBJECT, DIRECTORY)


def pages_of(
    entries: Entries, attached: Attached, directory: str, kind: bytes, after: str = ""
) -> Iterator[list[Entry]]:
    """Yield what is known of one kind in a directory, behind a name, in the order of `name_bytes`.

    Each page is what there is when it is read. Raises: OSError (EIO: what was known is damaged).
    """
    position: bytes | str | None = after or b""
    while position is not None:
        if attached.manifest is not None:
            page, position = attached.manifest.page(directory, kind, position)
        else:
            found = entries.page(attached.record.id, directory, kind, position)
            if found is None:
                entries.forget_listing(attached.record.id, directory)
                name = f"{attached.label}/{directory}"
                raise OSError(errno.EIO, "what was known of the directory is damaged; list it anew", name)
            page, position = found
        if page:
            yield page


def entries_of_directory(
    entries: Entries, attached: Attached, directory: str, after: str = ""
) -> Iterator[Entry]:
    """Yield what is known in a directory, behind a name, in the order of the names' bytes.

    Of what is both an object and a directory, the object. Raises: as ``pages_of``.
    """
    kinds = [chain.from_iterable(pages_of(entries, attached, directory, kind, after)) for kind in _KINDS]
    return _once(merge(*kinds, key=_order))


def in_order(found: Iterable[Entry], after: str = "") -> Iterator[Entry]:
    """Yield as ``entries_of_directory`` what lies in a directory."""
    behind = name_bytes(after)
    wanted = [entry for entry in found if not after or _order(entry) > behind]
    return _once(sorted(wanted, key=lambda entry: (_order(entry), entry.is_dir)))


def _once(found: Iterable[Entry]) -> Iterator[Entry]:
    last = None
    for entry in found:
        if entry.path != last:
            last = entry.path
            yield entry


def _order(entry: Entry) -> bytes:
    return name_bytes(entry.path.rpartition("/")[2])
