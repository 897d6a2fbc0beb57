"""What extended attributes tell of a file: its version, what of it is cached and where, and if pinned."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from forebay.cache import Node, Nodes

_KIND: Final = b"user."


class Xattrs:
    """The extended attributes ``user.forebay.*`` of objects. Threads: any."""

    def __init__(self, nodes: Nodes) -> None:
        """Tell of these nodes."""
        self._nodes: Final = nodes
        self._values: Final[dict[bytes, Callable[[Node], str]]] = {
            b"user.forebay.cached": self._cached,
            b"user.forebay.version": lambda node: node.entry.version,
            b"user.forebay.location": self._location,
            b"user.forebay.pinned": lambda node: str(int(nodes.is_pinned(node))),
        }

    def is_known(self, name: bytes) -> bool:
        """Say whether there is an attribute of that name at all.

        Raises: OSError (EOPNOTSUPP: none of its kind. ``ls -l`` asks for a label and an access list of every
        file, and stops when it is told this, not when it is told that one has none).
        """
        if not name.startswith(_KIND):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return name in self._values

    def names(self, node: Node) -> list[bytes]:
        """Return the names of those that a node has; a directory has none."""
        return [] if node.entry.is_dir else list(self._values)

    def value(self, node: Node, name: bytes) -> bytes:
        """Return the value of one. Raises: OSError (ENODATA: there is none of that name)."""
        value = None if node.entry.is_dir else self._values.get(name)
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return value(node).encode("utf-8", "surrogateescape")

    def _cached(self, node: Node) -> str:
        """Return the bytes that are cached of those that there are."""
        return f"{self._nodes.cached_bytes(node)}/{node.entry.size}"

    def _location(self, node: Node) -> str:
        """Return the host that has some of it; nothing where none has."""
        return socket.gethostname() if self._nodes.cached_bytes(node) else ""
