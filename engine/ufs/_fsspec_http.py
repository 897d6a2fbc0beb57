"""``http://`` and ``https://``: files behind a web server, over the session of fsspec's file system.

fsspec's own calls are not enough to stand on here: info turns every failure into an absent file, cat_file
takes the whole object into memory if the server ignores the Range, and ls gives neither sizes nor versions.
So the requests are made in this module, over fsspec's session (connections, proxies, TLS, ~/.netrc), and a
response must prove that it is the asked range of the asked version.

A directory is what the server shows an index page for, whose links are its names.
"""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
import urllib.parse
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

from forebay.errors import stale, under_storage_error
from forebay.ufs._fsspec_errors import delay_s, is_absent, is_transient, raise_translated
from forebay.ufs._fsspec_http_body import HttpBody
from forebay.ufs._fsspec_options import Target
from forebay.ufs._http_head import RANGE_NOT_SATISFIABLE, Head, head_of, is_strong_tag
from forebay.ufs._http_index import names_on_index
from forebay.ufs._http_range import ServedRange, WrongRange, served_range
from forebay.ufs._loop import loop_of_process, run_in_loop
from forebay.ufs._stop import Stop
from forebay.ufs.base import ObjectInfo, RangeBody, UnderStorage

_T = TypeVar("_T")

_CONNECT_TIMEOUT_S: Final = 5.0
_CONNECTIONS: Final = 64
_HEADS_AT_ONCE: Final = 16
_PAGE_ENTRIES: Final = 1_000
_INDEX_BYTES_MAX: Final = 64 << 20
# A body or an index page slower than this for all its length is as good as none.
_BYTES_A_SECOND_MIN: Final = 64 << 10

_ABSENT: Final = (404, 410)
_NO_HEAD: Final = (405, 501)
_PRECONDITION_FAILED: Final = 412
_HTML: Final = ("text/html", "application/xhtml+xml")


class _Failed(Exception):  # noqa: N818  (says what happened; never leaves the module)
    """What the last attempt at a path raised, on its way out of the loop."""

    def __init__(self, path: str, error: Exception) -> None:
        super().__init__(path)
        self.path = path
        self.error = error


class HttpStorage(UnderStorage):
    """A folder behind a web server."""

    def __init__(self, target: Target) -> None:
        """Use a checked URI; connects to nothing."""
        self._target: Final = target
        # What is encoded already stays as it is.
        self._base: Final = urllib.parse.quote(target.uri, safe=":/%@!$&'()*+,;=~[]")
        self._lock: Final = threading.Lock()
        self.stop: Final = Stop()
        self._made: Any = None

    def stat(self, path: str) -> ObjectInfo:
        """Ask for the head; what a server redirects to its name with a slash is a directory."""
        return self._described(path, self._run(path, lambda: self._head(path)))

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """Read the index page, then ask for the head of every file on it."""
        head, text = self._run(path, lambda: self._index(path), _INDEX_BYTES_MAX)
        if head.headers.get("Content-Type", "").partition(";")[0].strip().lower() not in _HTML:
            raise under_storage_error(self.uri_of(path), "the server shows no index page for this folder")
        names = names_on_index(text, head.url)
        parent = f"{path}/" if path else ""
        yield [ObjectInfo(parent + name, 0, 0, "", is_dir=True) for name, is_dir in names.items() if is_dir]
        files = [parent + name for name, is_dir in names.items() if not is_dir]
        for first in range(0, len(files), _PAGE_ENTRIES):
            page = files[first : first + _PAGE_ENTRIES]
            heads = self._translated(self._heads(page))
            yield [self._described(name, head) for name, head in zip(page, heads, strict=True) if head]

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """GET the range, with If-Match if the version is an ETag that servers compare."""
        return HttpBody(self, path, offset, length, version)

    def get(self, path: str, offset: int, length: int, version: str | None) -> tuple[ObjectInfo, int, Any]:
        """Send one GET. Returns the object, the number of bytes that come, and aiohttp's response.

        Raises: as read_range; UnderStorageError where the answer is not the range that was asked for.
        """
        response = self._run(path, lambda: self._get(path, offset, length, version))
        try:
            info, served = self._accept(path, head_of(response), offset, length, version)
            if served is None:
                self.drop(response)
                return info, 0, None
            return info, served.length, response
        except BaseException:
            self.drop(response)
            raise

    def _accept(
        self, path: str, head: Head, offset: int, length: int, version: str | None
    ) -> tuple[ObjectInfo, ServedRange | None]:
        """Hold a response to what was asked; no range at all if it begins at or behind the object's end."""
        if head.status == _PRECONDITION_FAILED:
            raise stale(self.uri_of(path), version or "", "another")
        if head.is_dir:
            raise IsADirectoryError(errno.EISDIR, "is a directory", self.uri_of(path))
        if head.status == RANGE_NOT_SATISFIABLE:
            info, served = self.stat(path), None
            if info.is_dir or info.size > offset:
                cause = f"refused a range from byte {offset} on of an object of {info.size} bytes"
                raise under_storage_error(self.uri_of(path), cause)
        else:
            served = self._served(path, head, offset, length)
            info = head.info(path, served.object_size)
            if served.length == 0 or offset >= served.object_size:
                served = None
        # Not every server looks at If-Match.
        if version is not None and info.version != version:
            raise stale(self.uri_of(path), version, info.version)
        return info, served

    def _served(self, path: str, head: Head, offset: int, length: int) -> ServedRange:
        size = head.content_length
        if head.status == 200 and "Content-Range" not in head.headers and size is not None and size <= offset:
            # The whole object, though the range was not looked at: there is nothing from offset on.
            return ServedRange(0, size)
        try:
            return served_range(head.status, head.headers.get("Content-Range"), size, offset, length)
        except WrongRange as error:
            ignored = head.status == 200 and "Content-Range" not in head.headers
            cause = f"the server ignores ranges: {error}" if ignored else str(error)
            raise under_storage_error(self.uri_of(path), cause) from error

    def drop(self, response: Any) -> None:
        """Give up a response; its connection is kept if the body was read to its end."""
        loop_of_process().call_soon_threadsafe(response.release)

    def close(self) -> None:
        """Close the session, whose requests end with it."""
        self.stop.set()
        with self._lock:
            made, self._made = self._made, None
        # At the very end of the interpreter the loop's thread does not run any more.
        if made is not None and not sys.is_finalizing():
            run_in_loop(_close(made))

    def deadline_s(self, body_bytes: int) -> float:
        """Return how long one answer may take, with a body of this length."""
        return _CONNECT_TIMEOUT_S + self._target.timeout_s + body_bytes / _BYTES_A_SECOND_MIN

    @property
    def attempts(self) -> int:
        """How often a body is begun anew before its reader is told."""
        return self._target.attempts

    def uri_of(self, path: str) -> str:
        """Return the URI of a path, for messages."""
        return f"{self._target.uri}/{path}" if path else self._target.uri

    def _url(self, path: str) -> str:
        return f"{self._base}/{urllib.parse.quote(path, errors='surrogateescape')}"

    def _described(self, path: str, head: Head) -> ObjectInfo:
        if head.is_dir:
            return ObjectInfo(path, 0, 0, "", is_dir=True)
        if head.size is None:
            raise under_storage_error(self.uri_of(path), "the server does not tell the size of this file")
        return head.info(path, head.size)

    def _system(self) -> Any:
        with self._lock:
            self.stop.check(self._target.uri)
            if self._made is None:
                self._made = self._target.file_system(
                    **self._target.keywords,
                    encoded=True,
                    get_client=_open_session,
                    client_kwargs={"timeout_s": self._target.timeout_s},
                    loop=loop_of_process(),
                    skip_instance_cache=True,
                )
            return self._made

    def _run(self, path: str, request: Callable[[], Awaitable[_T]], body_bytes: int = 0) -> _T:
        return self._translated(self._attempt(path, request, body_bytes))

    def _translated(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            return run_in_loop(work)
        except _Failed as failed:
            raise_translated(failed.error, self.uri_of(failed.path))

    async def _attempt(self, path: str, request: Callable[[], Awaitable[_T]], body_bytes: int = 0) -> _T:
        """Await the request as often, and each time as long, as the options allow. Raises: _Failed."""
        for attempt in range(1, self.attempts + 1):
            try:
                async with asyncio.timeout(self.deadline_s(body_bytes)):
                    return await request()
            except Exception as error:
                self.stop.check(self.uri_of(path))
                if attempt == self.attempts or not is_transient(error):
                    raise _Failed(path, error) from error
            await asyncio.sleep(delay_s(attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _head(self, path: str) -> Head:
        """Ask for the head of a file or directory.

        Where a server refuses HEAD, or tells no size with it, that of a GET of one byte; where it does not
        redirect a directory's name to the one with a slash, that of the latter.
        """
        head = await self._ask_head(self._url(path))
        if head.is_ok and (head.is_dir or head.size is not None):
            return head
        if head.status in _ABSENT and not head.is_dir:
            with_slash = await self._ask_head(f"{self._url(path)}/")
            if with_slash.is_ok and with_slash.is_dir:
                return with_slash
            if with_slash.status >= 500:
                with_slash.raise_for_status()
        if not head.is_ok and head.status not in _NO_HEAD:
            head.raise_for_status()
        response = await self._get(path, 0, 1, None)
        response.release()
        return head_of(response)

    async def _ask_head(self, url: str) -> Head:
        system = self._system()
        session = await system.set_session()
        self.on_request("heads")
        async with session.head(system.encode_url(url), allow_redirects=True) as response:
            return head_of(response)

    async def _heads(self, paths: Sequence[str]) -> Sequence[Head | None]:
        """Ask for many heads, some at a time; None for a file that is not there, as a broken link's."""
        turns = asyncio.Semaphore(_HEADS_AT_ONCE)

        async def head(path: str) -> Head | None:
            async with turns:
                try:
                    return await self._attempt(path, lambda: self._head(path))
                except _Failed as failed:
                    if is_absent(failed.error):
                        return None
                    raise

        tasks = [asyncio.ensure_future(head(path)) for path in paths]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _get(self, path: str, offset: int, length: int, version: str | None) -> Any:
        """Begin a GET; the response is the caller's to release."""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        if version and is_strong_tag(version):
            headers["If-Match"] = f'"{version}"'
        system = self._system()
        session = await system.set_session()
        self.on_request("gets")
        response = await session.get(system.encode_url(self._url(path)), headers=headers)
        head = head_of(response)
        if not head.is_ok and head.status not in (_PRECONDITION_FAILED, RANGE_NOT_SATISFIABLE):
            response.release()
            head.raise_for_status()
        return response

    async def _index(self, path: str) -> tuple[Head, str]:
        system = self._system()
        session = await system.set_session()
        url = f"{self._url(path).rstrip('/')}/"
        self.on_request("lists")
        async with session.get(system.encode_url(url)) as response:
            head_of(response).raise_for_status()
            data = bytearray()
            while chunk := await response.content.read(_INDEX_BYTES_MAX):
                data += chunk
                if len(data) > _INDEX_BYTES_MAX:
                    raise OSError(errno.EFBIG, f"an index page of more than {_INDEX_BYTES_MAX} bytes")
            return head_of(response), data.decode(response.charset or "utf-8", "replace")


async def _open_session(*, timeout_s: float, **_: Any) -> Any:
    """Make aiohttp's session; in the loop, as its connector must be."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
        timeout=aiohttp.ClientTimeout(
            total=None, connect=timeout_s, sock_connect=_CONNECT_TIMEOUT_S, sock_read=timeout_s
        ),
        # The bytes are wanted as they lie on the server.
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        # Proxies of the environment, credentials of ~/.netrc.
        trust_env=True,
    )


async def _close(system: Any) -> None:
    session = await system.set_session()
    await session.close()
