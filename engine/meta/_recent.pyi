"""What a process has looked up lately, and how it knows that nothing has changed since.

Its invariant: an entry is handed out only while its change counter, a word of memory that all processes of
the cache share, reads as it did before the entry was looked up, and only until its time is over. It is no
store: any entry may be gone at any time. Survives a fork; the words are shared, the table is each side's own.
"""

from typing import Self, final

from typing_extensions import Buffer

from forebay.meta.rows import Entry

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
class Known:
    """What a look-up found, as it was when it was handed out; each part is made when it is asked for."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @property
    def path(self) -> str:
        """The path that it was asked for by: the dataset's name, a slash, and the path in it."""
    @property
    def dataset(self) -> str:
        """The name of the dataset."""
    @property
    def entry(self) -> Entry:
        """The entry itself; what follows are parts of it."""
    @property
    def size(self) -> int:
        """The entry's size."""
    @property
    def mtime_ns(self) -> int:
        """The entry's time."""
    @property
    def version(self) -> str:
        """The entry's version."""
    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
    @property
    def key(self) -> bytes | None:
        """The key that was given with the entry; None if path or version stood in it in another form."""

@final
class Recent:
    """A table path -> entry of one process, bounded in bytes; what was not asked for lately gives way.

    An entry takes about 70 bytes: its path is not kept but stood for by a hash of 128 bits under a secret of
    the table's own. Memory is taken as it is needed. The order of eviction is approximate (second chance).
    Threads: any.
    """

    @property
    def bytes_max(self) -> int:
        """The bound."""
    @property
    def bytes_used(self) -> int:
        """What is taken now; what belongs to a dataset as a whole, some hundred bytes, is not counted."""

    def __new__(cls, bytes_max: int) -> Self:
        """Make an empty table; one of 0 bytes keeps nothing.

        Raises: ConfigError (neither 0 nor 64 KiB to 64 MiB).
        """

    def put(
        self,
        path: str,
        entry: Entry,
        counter: ChangeCounter,
        seen_changes: int,
        *,
        max_age_ns: int = -1,
        key: bytes | None = None,
    ) -> None:
        """Remember an entry while the counter reads seen_changes, and until its check is max_age_ns old.

        The caller guarantees that path is a dataset's name, a slash, and the entry's path. He has
        seen_changes from before the look-up, or together with it (``Entries.seen``), never from the counter
        itself: the counter is ahead of what can be looked up while a change is being written. A max_age_ns of
        -1 is for ever. key is handed out with the entry, if path and version stand in it; the rest of it is
        the same for all of a dataset, and kept once. What has a version of more than 192 bytes, or figures
        that no storage has, is not kept. Raises: ValueError (another path).
        """

    def get(self, path: object, /) -> Known | None:
        """Return what is known, or None if there is nothing that still holds, or path is no str.

        Takes 0.1 to 0.2 µs.
        """

    def forget(self, path: str) -> None:
        """Drop what is remembered of a path, if anything."""

    def clear(self) -> None:
        """Drop everything, and let go of the counters and their memory."""

    def __len__(self) -> int:
        """Return how many entries are kept, whether they still hold or not."""
