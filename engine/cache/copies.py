"""Copies of many views at once: what takes the time is memory that is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from forebay.config import MIB

if TYPE_CHECKING:
    from forebay.store import View

# From here on pages are worth asking for.
_MANY_BYTES: Final = 1 * MIB


def copies_of(views: Sequence[View]) -> list[bytes]:
    """Return the bytes of views, in order, each in an object of its own.

    Many bytes are copied without the interpreter lock; the views cannot be released meanwhile.
    Raises: ValueError (one was released).
    """
    if sum(map(len, views)) < _MANY_BYTES:
        return [bytes(view) for view in views]
    from forebay.store import copies

    return copies(views)
