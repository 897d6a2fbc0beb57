"""What an open directory shows: taken when it was opened, so that its order and its offsets stay.

A hundred thousand entries are usual, so they are kept in arrays, about 100 bytes each with their names, and
not as objects.
"""

from __future__ import annotations

from array import array
from time import monotonic
from typing import TYPE_CHECKING, Final

from forebay.fuse.attributes import Attributes

if TYPE_CHECKING:
    from forebay.fuse.attributes import Appearance

# The kernel's own bound for names in FUSE.
NAME_BYTES_MAX: Final = 1_024
_UNSHOWN: Final = frozenset({b"", b".", b".."})


class Listing:
    """The entries of one directory, numbered from 0. Threads: one at a time."""

    def __init__(self, appearance: Appearance) -> None:
        """Begin with none."""
        self.names: Final[list[bytes]] = []
        self._begun_s: Final = monotonic()
        self._appearance: Final = appearance
        self._inodes: Final = array("Q")
        self._sizes: Final = array("Q")
        self._mtimes_ns: Final = array("q")
        self._timeouts_s: Final = array("d")
        self._are_dirs: Final = bytearray()

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.names)

    def add(self, name: bytes, attributes: Attributes, *, is_dir: bool) -> None:
        """Add an entry, unless it has a name that no file system shows."""
        if name in _UNSHOWN or b"\0" in name or b"/" in name or len(name) > NAME_BYTES_MAX:
            return
        self.names.append(name)
        self._inodes.append(attributes.inode)
        self._sizes.append(attributes.size)
        self._mtimes_ns.append(attributes.mtime_ns)
        self._timeouts_s.append(attributes.timeout_s)
        self._are_dirs.append(is_dir)

    def attributes(self, number: int) -> Attributes:
        """Return the attributes of an entry; they hold for as long as is left of what they did at first."""
        age_s = monotonic() - self._begun_s
        return self._appearance.described(
            self._inodes[number],
            self._sizes[number],
            self._mtimes_ns[number],
            max(self._timeouts_s[number] - age_s, 0.0),
            is_dir=bool(self._are_dirs[number]),
        )
