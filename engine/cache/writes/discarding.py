"""Files that an orderly close writes: everything else that ends them discards what was written."""

from __future__ import annotations

import io
from abc import abstractmethod
from contextlib import suppress
from types import TracebackType


class DiscardingFile(io.BufferedIOBase):
    """A binary file whose ``close`` writes an object as a whole.

    An exception in its ``with`` block and dropping it are ``discard``, which subclasses have.
    """

    @abstractmethod
    def discard(self) -> None:
        """Close, and leave the object as it is. May be called twice."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the object, or discard it after an exception."""
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        """Discard what was never closed."""
        with suppress(OSError, AttributeError):
            self.discard()
