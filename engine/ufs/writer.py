"""What an under storage that can be written to must be able to do: the other half of ``UnderStorage``.

An object becomes visible as a whole or not at all: a reader of the storage sees what was there before, or
what was written, never a part. Paths are as in base.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from forebay.ufs.base import ObjectInfo
from forebay.ufs.payload import Payload

_T = TypeVar("_T")

Facts = Mapping[str, Any]


class Written(NamedTuple):
    """What a written object is at the storage, and whether that is proven to be what was written.

    Otherwise the storage was asked afterwards, and another may have written meanwhile.
    """

    info: ObjectInfo
    is_own: bool


class WriteJob(ABC):
    """What a storage is given for one write by whoever asks for it. Threads: any."""

    @abstractmethod
    def note(self, **facts: Any) -> None:
        """Keep facts, fit for JSON, by which what the write leaves at the storage is found if it is killed.

        They are kept when it returns, and until the write is over.
        """

    @abstractmethod
    def leave(self) -> None:
        """Keep the notes beyond the end of the write: what they tell of could not be removed."""

    @abstractmethod
    def run_all(self, tasks: Sequence[tuple[int, Callable[[], _T]]]) -> list[_T]:
        """Run tasks, (bytes that each holds in memory, function), within the limits of the process.

        Returns what they return, in order. Raises: what the first in order raised, when all have ended.
        """


class StorageWriter(ABC):
    """Changes an under storage. Threads: any.

    Every method raises PermissionError, TimeoutError and, for all else that the storage says,
    UnderStorageError, each with the path (the full URI) and the cause.
    """

    @abstractmethod
    def put(self, path: str, payload: Payload, job: WriteJob, *, exclusive: bool = False) -> Written:
        """Write an object in place of what there is, durably as far as the storage knows that.

        Directories above it are made where they are things of their own. exclusive: only if there is none,
        told by the storage itself and not by a look before; the caller has seen to it that the payload is
        within ``exclusive_bytes_max``. After an exception the object is as it was, unless the storage did not
        answer. Raises, besides the above: FileExistsError (exclusive); IsADirectoryError;
        NotADirectoryError; OSError of the payload.
        """

    @abstractmethod
    def exclusive_bytes_max(self, path: str, job: WriteJob) -> int:
        """Return how large an object may be that is written exclusively to that path; 0: not at all.

        Where the storage's kind does not tell, the very storage is tried, once, by an object of its own
        beside the path that is removed again.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object, or a directory in which there is nothing.

        Raises, besides the above: NotFound; UnderStorageError with ENOTEMPTY.
        """

    @abstractmethod
    def rename(self, path: str, target: str, job: WriteJob) -> ObjectInfo:
        """Give an object another path, in place of what there is, and describe it there.

        A directory as well, where that is one act. Raises, besides the above: NotFound; IsADirectoryError
        (a directory that can only be renamed object by object); Stale (it changed meanwhile).
        """

    @abstractmethod
    def mkdir(self, path: str) -> None:
        """Make a directory and those above it; one that is there is as good.

        Raises, besides the above: FileExistsError (an object has that name); NotADirectoryError.
        """

    @abstractmethod
    def undo(self, facts: Facts) -> None:
        """Remove what a write that was killed has left, by the notes of it; may be called twice."""
