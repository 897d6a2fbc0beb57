"""What an under storage must be able to do: a handful of methods, one class for each kind of storage.

Paths here are relative to the attached URI, with ``/`` between the parts, none of them empty, ``.`` or
``..``; the URI itself is ``""``. An object belongs to one process: whoever forks makes another one in the
child. Making one asks nobody: connections are made at the first use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from forebay.config import nearest
from forebay.errors import ConfigError, NotFound
from forebay.ufs._walk import visit_in_parallel

if TYPE_CHECKING:
    from forebay.ufs.writer import StorageWriter

# What is passed on at a time still lies in a core's caches when it is copied and its checksum is made.
PIECE_BYTES: Final = 256 << 10
# What a request asks for: that is what stores price. lists are of names, puts all that writes.
RequestKind = Literal["gets", "heads", "lists", "puts", "deletes"]


def _unheard(kind: RequestKind) -> None:
    """Count for nobody."""


class ObjectInfo(NamedTuple):
    """One object, or a directory (with neither size nor version), as the under storage gives it.

    version differs whenever the bytes may differ: an ETag, or what a file system knows about a file.
    """

    path: str
    size: int
    mtime_ns: int
    version: str
    is_dir: bool = False


class RangeBody(ABC):
    """The bytes of a range, about to be read once and in order; a context manager that closes itself.

    info describes the whole object that they belong to; they are length bytes from offset on. ``readinto``,
    ``take`` and ``pieces`` each go on where the one before ended, and the caller asks for no more than there
    are. What they give is of info's version. progress is called whenever bytes have come. All resume after a
    broken connection, and may block for several time-outs. For one thread.
    Raises, all three: Stale (the object changed meanwhile); UnderStorageError, TimeoutError (after all
    attempts). Nothing more is to be read then.
    """

    info: ObjectInfo
    offset: int
    length: int

    @abstractmethod
    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        """Fill the buffer with the next bytes; after an exception its content means nothing."""

    def take(self, length: int, progress: Callable[[], None] = lambda: None) -> memoryview:
        """Return the next bytes in a buffer that nobody changes afterwards.

        A storage whose client makes a buffer of its own gives that one, without a copy.
        """
        buffer = memoryview(bytearray(length))
        self.readinto(buffer, progress)
        return buffer

    def pieces(self, length: int, progress: Callable[[], None] = lambda: None) -> Iterator[memoryview]:
        """Yield the next bytes as they come, each piece good until the next is asked for."""
        buffer = memoryview(bytearray(min(length, PIECE_BYTES)))
        for done in range(0, length, PIECE_BYTES):
            piece = buffer[: length - done]
            self.readinto(piece, progress)
            yield piece

    @abstractmethod
    def close(self) -> None:
        """Give up what is left; may be called twice."""

    def __enter__(self) -> Self:
        """Return this body."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


class UnderStorage(ABC):
    """A place where the data lives. Threads: any.

    Every method raises NotFound only when the storage itself says that there is no such object;
    PermissionError, TimeoutError and, for all else, UnderStorageError, each with the path (the full URI)
    and the cause.
    """

    # Whether a directory is a thing of its own, which may be empty; otherwise it is no more than the first
    # parts of names, and a walk of all objects tells of every one.
    has_directories = True

    # Called before each request is sent, repeated ones too, by the thread that sends it. A storage that sends
    # none, as a local folder, never calls it.
    on_request: Callable[[RequestKind], None] = staticmethod(_unheard)

    @abstractmethod
    def stat(self, path: str) -> ObjectInfo:
        """Describe the object, or the directory if there is no object of that name."""

    @abstractmethod
    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """Yield what lies directly in the directory, page by page, in no promised order.

        A name that cannot be part of a path (empty, ``.``, ``..``) is left out; what is both an object and
        a directory comes twice. Raises, besides the above, while it is iterated: NotFound (no such
        directory).
        """

    def walk(self, path: str, prefix_workers: int = 8) -> Iterator[Sequence[ObjectInfo]]:
        """Yield every object below the directory, page by page, objects only, in no promised order.

        The caller guarantees prefix_workers >= 1: as many requests at a time at most. A directory that
        vanishes meanwhile has nothing below it. Closing the iterator ends the walk. Raises, besides the
        above, while it is iterated: NotFound (no such directory).
        """

        def visit(directory: str) -> Iterator[tuple[Sequence[ObjectInfo], Sequence[str]]]:
            try:
                for page in self.list(directory):
                    yield (
                        [info for info in page if not info.is_dir],
                        [info.path for info in page if info.is_dir],
                    )
            except NotFound:
                if directory == path:
                    raise

        return visit_in_parallel([path], visit, prefix_workers)

    @abstractmethod
    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """Begin to read length bytes from offset on, fewer at the object's end, none behind it.

        The caller guarantees offset >= 0 and length > 0. With a version the bytes are of that version, else
        of the present one. What the storage sends is the range that was asked for, or refused. Raises,
        besides the above: Stale (the object has another version); IsADirectoryError.
        """

    def writer(self) -> StorageWriter | None:
        """Return what changes this storage; None: it can only be read."""
        return None

    def prepare(self) -> None:  # noqa: B027  (most have nothing to do)
        """Make what the first request needs and takes long to make; asks nobody. May be called often."""

    def counts(self) -> Mapping[str, int]:
        """Return what was counted since this object was made; a storage leaves out what it does not count.

        failed_requests: requests that were tried again or given up; throttled: those among them that were
        refused for load; hidden_keys: what listings brought that no path can name.
        """
        return {}

    @abstractmethod
    def close(self) -> None:
        """Close connections; may be called twice. Nothing is to be begun afterwards.

        What other threads are at raises Closed: between two attempts, and whenever bytes have come. It may
        end as usual where it is that far.
        """


_SECRET_WORDS = ("key", "secret", "token", "password", "credential")


def check_options(scheme: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Hold the options of an attachment to those that a storage knows.

    Raises: ConfigError: a secret, whose value is not shown (attachments are kept on disk and listed, so
    credentials are only ever given by reference), or an unknown name.
    """
    for name in options:
        if name in known:
            continue
        if any(word in name.lower() for word in _SECRET_WORDS):
            raise ConfigError(
                f"{name}: credentials are not kept with a dataset; give them by reference: the environment, "
                "a profile (profile=...) or the machine's role"
            )
        raise ConfigError(
            f"{name}: {scheme}:// has no such option{nearest(name, known)}; it has {', '.join(known)}"
        )


def refuse_embedded_credentials(url: str, what: str) -> None:
    """Refuse a URL with a user name or password in it, without showing it.

    Raises: ConfigError.
    """
    authority = url.partition("://")[2].partition("/")[0]
    if "@" in authority:
        raise ConfigError(
            f"{what}: user names and passwords do not belong into a URL; give credentials by reference"
        )
