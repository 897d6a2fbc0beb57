"""The body of a ranged GET over http://, resumed in the same version where it broke off."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from forebay.errors import under_storage_error
from forebay.ufs._fsspec_errors import delay_s, is_transient, raise_translated
from forebay.ufs._loop import run_in_loop
from forebay.ufs.base import RangeBody

if TYPE_CHECKING:
    from forebay.ufs._fsspec_http import HttpStorage

# Between two signs of progress, which the reader's thread gives.
_STEP_BYTES: Final = 1 << 20


class HttpBody(RangeBody):
    """The body of one ranged GET, begun anew where it broke off."""

    def __init__(
        self, storage: HttpStorage, path: str, offset: int, length: int, version: str | None
    ) -> None:
        """Send the GET. Raises: as UnderStorage.read_range."""
        self._storage = storage
        self._path = path
        self.offset = offset
        self.info, self.length, self._response = storage.get(path, offset, length, version)
        self._done = 0
        # One budget for all that is read of it.
        self._attempt = 1
        self._deadline_s = time.monotonic() + storage.attempts * storage.deadline_s(self.length)

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        """Read, resuming after a broken or silent connection as often as the storage's attempts allow."""
        end, uri = self._done + len(buffer), self._storage.uri_of(self._path)
        while self._done < end:
            try:
                self._drain(buffer[self._done - end :], progress)
            except Exception as error:  # noqa: BLE001  (aiohttp's many kinds; it goes on as ours)
                self.close()
                self._storage.stop.check(uri)
                is_late = time.monotonic() >= self._deadline_s
                if self._attempt == self._storage.attempts or is_late or not is_transient(error):
                    raise_translated(error, uri)
                self._storage.stop.pause(delay_s(self._attempt), uri)
                self._attempt += 1
                self._resume()

    def _drain(self, buffer: memoryview, progress: Callable[[], None]) -> None:
        while buffer:
            timeout_s = self._deadline_s - time.monotonic()
            count = run_in_loop(_fill(self._response, buffer[:_STEP_BYTES], timeout_s))
            buffer = buffer[count:]
            self._done += count
            progress()

    def _resume(self) -> None:
        offset, left = self.offset + self._done, self.length - self._done
        _, length, self._response = self._storage.get(self._path, offset, left, self.info.version)
        if length != left:
            cause = f"asked for the last {left} bytes of a range, got {length}"
            raise under_storage_error(self._storage.uri_of(self._path), cause)

    def close(self) -> None:
        """Give up the response."""
        response, self._response = self._response, None
        if response is not None:
            self._storage.drop(response)


async def _fill(response: Any, part: memoryview, timeout_s: float) -> int:
    """Fill the buffer with the next bytes of the body, as many as come; return how many, never none."""
    done = 0
    async with asyncio.timeout(timeout_s):
        while done < len(part):
            try:
                chunk = await response.content.read(len(part) - done)
            except Exception:
                if done == 0:
                    raise
                # The next call raises it again; what came before it is kept.
                break
            if not chunk:
                break
            part[done : done + len(chunk)] = chunk
            done += len(chunk)
    if done == 0:
        raise ConnectionError(errno.ECONNRESET, "the body ended early")
    return done
