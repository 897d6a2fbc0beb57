"""Which members of a group answer for the pieces of an object."""

from __future__ import annotations

from typing import Final, NamedTuple

from forebay.cache.datasets import Attached
from forebay.meta import Entry
from forebay.remote import PLACEMENT_BYTES, Holder, Remote

# What one member answers for, from a multiple of it on.
PIECE_BYTES: Final = PLACEMENT_BYTES


class Place(NamedTuple):
    """length bytes of an object from offset on, and the members that answer for them, the first first.

    None: this host alone.
    """

    offset: int
    length: int
    holders: tuple[Holder, ...]


def places_of(
    remote: Remote, attached: Attached, entry: Entry, offset: int, length: int | None
) -> list[Place]:
    """Return the pieces of a range of an object, less at its end. Raises: ValueError (negative figures)."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"{entry.path}: offset {offset} and length {length} are to be 0 or more")
    end = entry.size if length is None else min(entry.size, offset + length)
    replicas = attached.rules.of(entry.path).replicas
    places: list[Place] = []
    while offset < end:
        stop = min(end, offset - offset % PIECE_BYTES + PIECE_BYTES)
        holders = remote.holders(attached.record.name, entry.path, offset, replicas)
        places.append(Place(offset, stop - offset, tuple(holders)))
        offset = stop
    return places
