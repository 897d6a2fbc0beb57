"""The body of an S3 GET: by obstore first where it can, by boto3 after anything went wrong.

One budget of attempts and time holds for all that it takes: opening, and going on where it broke off, in the
same version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from forebay.errors import stale, under_storage_error
from forebay.ufs._s3_errors import Failed, Kind, broken
from forebay.ufs._s3_get import Answer, Wanted
from forebay.ufs.base import RangeBody

if TYPE_CHECKING:
    from forebay.ufs.s3 import S3Storage


class S3Body(RangeBody):
    """A range of one version of an object."""

    def __init__(self, storage: S3Storage, wanted: Wanted) -> None:
        """Send the GET. Raises: as UnderStorage.read_range."""
        self._storage: Final = storage
        self._uri: Final = storage.uri_of(wanted.path)
        self._tries: Final = storage.tries(self._uri, wanted.length)
        self._by_boto = False
        self._answer = self._open(wanted)
        # Of self.length; it counts through all resumptions.
        self._done = 0
        self.offset = wanted.offset
        self._wanted = wanted
        if self._answer is None:
            self.info, self.length = storage.behind_the_end(wanted), 0
        else:
            self.info, self.length = self._answer.info, self._answer.length

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        """Copy piece by piece."""
        for piece in self.pieces(len(buffer), progress):
            buffer[: len(piece)] = piece
            buffer = buffer[len(piece) :]

    def take(self, length: int, progress: Callable[[], None] = lambda: None) -> memoryview:
        """Return the client's own buffer where all comes in one piece."""
        if not length:
            return memoryview(b"")
        first = self._next(length, progress)
        if len(first) == length:
            return first
        buffer = memoryview(bytearray(length))
        buffer[: len(first)] = first
        self.readinto(buffer[len(first) :], progress)
        return buffer

    def pieces(self, length: int, progress: Callable[[], None] = lambda: None) -> Iterator[memoryview]:
        """Yield the client's own buffers."""
        while length > 0:
            piece = self._next(length, progress)
            length -= len(piece)
            yield piece

    def _next(self, size_max: int, progress: Callable[[], None]) -> memoryview:
        """Read a piece, going on after a broken or silent connection as long as the budget lasts."""
        while True:
            assert self._answer is not None, "bytes are read from an answer that has some"
            try:
                piece = self._answer.read(size_max)
                if not piece:
                    raise broken(f"the body ended {self.length - self._done} bytes early")
            except Failed as failed:
                self._recover(failed)
                self._resume()
                continue
            self._done += len(piece)
            progress()
            self._tries.check()
            return piece

    def _recover(self, failed: Failed) -> None:
        """Prepare for another attempt, or raise if there is to be none."""
        self.close()
        self._by_boto = True
        self._tries.after(failed)

    def _resume(self) -> None:
        first, left = self._wanted, self.length - self._done
        wanted = Wanted(first.path, first.key, self.offset + self._done, left, self.info.version)
        self._answer = self._open(wanted)
        length = 0 if self._answer is None else self._answer.length
        if length != left:
            raise under_storage_error(self._uri, f"asked for the last {left} bytes of a range, got {length}")

    def _open(self, wanted: Wanted) -> Answer | None:
        """Return the answer, None if the range begins behind the object's end."""
        while True:
            self._tries.admit()
            try:
                answer = self._get(wanted)
            except Failed as failed:
                if failed.failure.kind is Kind.BEHIND_THE_END:
                    return None
                if failed.failure.kind is Kind.CHANGED:
                    raise stale(self._uri, wanted.version or "", "another") from failed.__cause__
                self._by_boto = True
                self._tries.after(failed)
                continue
            # Not every server looks at If-Match.
            if wanted.version is not None and answer.info.version != wanted.version:
                answer.close()
                raise stale(self._uri, wanted.version, answer.info.version)
            return answer

    def _get(self, wanted: Wanted) -> Answer:
        fast = None if self._by_boto else self._storage.fast_client()
        if fast is None or not fast.takes(wanted):
            return self._storage.client().get(wanted)
        try:
            answer: Answer | None = fast.get(wanted)
        except Failed as failed:
            if failed.failure.kind is not Kind.ODD:
                raise
            answer = self._storage.client().get(wanted)
            fast.was_odd()
            return answer
        return answer if answer is not None else self._storage.client().get(wanted)

    def close(self) -> None:
        """Close the answer."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()
