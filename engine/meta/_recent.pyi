"""What a process has looked up lately, and how it knows that nothing has changed since.

Its invariant: a value is handed out only while its change counter, a word of memory that all processes of
the cache share, reads as it did before the value was looked up, and only until its time is over. It is no
store: any value may be gone at any time. Survives a fork; the words are shared, the table is each side's own.
"""

from typing import Any, Self, final

from typing_extensions import Buffer

@final
class ChangeCounter:
    """One 64-bit word of shared memory, which stays mapped for as long as this lives. Threads: any."""

    def __new__(cls, memory: Buffer, index: int, *, writable: bool = True) -> Self:
        """Take word number index of a C-contiguous buffer that begins at a multiple of 8.

        Raises: IndexError (behind the end); BufferError (it cannot be written).
        """

    def load(self) -> int:
        """Return the word."""

    def store(self, value: int) -> None:
        """Set the word, whose only writer the caller is for the moment. Raises: TypeError (read-only)."""

@final
class Remembered:
    """A value of the table and what it depends on; nothing of it is seen from Python."""

@final
class Recent:
    """A bounded table path -> value of one process; when it is full, what was long unused gives way.

    The order of eviction is approximate (clock, or second chance). Threads: any.
    """

    @property
    def capacity(self) -> int:
        """How many values it holds at most."""

    def __new__(cls, capacity: int) -> Self:
        """Make an empty table. Raises: ValueError (capacity is not 1 or more)."""

    def put(
        self, path: str, value: object, counter: ChangeCounter, seen_changes: int, expires_ns: int = -1
    ) -> None:
        """Remember a value while the counter reads seen_changes, and until boot time reaches expires_ns.

        The caller has seen_changes from before the look-up, or together with it (``Entries.seen``), never
        from the counter itself: the counter is ahead of what can be looked up while a change is being
        written. An expires_ns of -1 is never.
        """

    def get(self, path: str) -> Any:
        """Return the value, or None if there is none that still holds. About 50 ns."""

    def forget(self, path: str) -> None:
        """Drop what is remembered of a path, if anything."""

    def clear(self) -> None:
        """Drop everything."""

    def __len__(self) -> int:
        """Return how many values are kept, whether they still hold or not."""
