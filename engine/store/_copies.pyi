"""Copies of many views at once."""

from collections.abc import Iterable

from forebay.store._store import View

def copies(views: Iterable[View]) -> list[bytes]:
    """Return the bytes of views, in order, each in an object of its own.

    Releases the interpreter lock while it copies, and no view can be released meanwhile. Faster than one by
    one where there is much to copy: the kernel gives pages to all of them at once. Threads: any.
    Raises: ValueError (a view was released); TypeError (something is no view).
    """
