"""What all of ``forebay://`` stands on: its options, its cache, its threads, and the names of paths."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from fsspec import asyn
from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.spec import AbstractFileSystem

from forebay.api._fsspec_caches import cache_of, checked_options
from forebay.api._fsspec_names import Place, place_of
from forebay.api._fsspec_threads import Threads
from forebay.cache import Cache
from forebay.cache.process import PerProcess
from forebay.cache.status import FileStatus
from forebay.errors import NotAttached, not_found

try:
    from fsspec.implementations.chained import ChainedFileSystem
except ImportError:
    # Before 2025.10 fsspec kept the path of a chained URL for its own classes: it does not come to us.
    ChainedFileSystem = AbstractFileSystem

if not hasattr(asyn, "reset_after_fork"):
    # Older ones take the parent's loop, whose thread is not there, for one that runs in a forked child.
    os.register_at_fork(after_in_child=asyn.reset_lock)

_P = ParamSpec("_P")
_T = TypeVar("_T")

# They wait for storages, mostly; the cache bounds its requests itself.
_THREADS: Final = 32

_threads: Final = PerProcess(lambda: Threads(_THREADS))
# Apart, so that a call there may wait for calls here.
_threads_beneath: Final = PerProcess(lambda: Threads(_THREADS))


def finds_datasets(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a method tell of a dataset that there is not as fsspec's users expect it: FileNotFoundError."""

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except NotAttached as error:
            paths = [str(each) for each in (*args[1:], *kwargs.values())]
            raise not_found(_blamed(error, paths), str(error)) from error

    return call


def _blamed(error: NotAttached, paths: list[str]) -> str:
    """Return which of some paths has no dataset, as far as the error names it."""
    named = (each for each in paths if f"'{each.removeprefix('forebay://').partition('/')[0]}'" in str(error))
    return next(named, paths[0] if paths else "")


class Base(AsyncFileSystem, ChainedFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system of fsspec over a cache that is opened at the first use, without the verbs."""

    protocol: ClassVar[str] = "forebay"
    # The blocking methods are methods of their own, and not turns of an event loop.
    mirror_sync_methods = False
    # The path of a chained URL, which makes no other instance.
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        *,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fo: str | None = None,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """Take the options of ``forebay.open``, as cache_dir, config_file and group, and open nothing yet.

        target_protocol comes with a chained URL: paths then lack it. There are no options for the under
        storage (target_options): those are given when a dataset is attached. The others are fsspec's.
        Raises: TypeError (an unknown option; names the nearest).
        """
        if target_options:
            raise TypeError(
                f"forebay::{target_protocol}://: takes no options for the under storage, and never a "
                "credential; options are given when the dataset is attached (forebay attach)"
            )
        self._options: Final = checked_options(options)
        self._target_protocol: Final = target_protocol
        self._opened: Cache | None = None
        self._pid: int = os.getpid()
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size)

    @property
    def storage_options(self) -> dict[str, Any]:
        """What an instance is made of, and pickles as: those given, as ``checked_options`` has them."""
        return self._storage_options

    @storage_options.setter
    def storage_options(self, given: dict[str, Any]) -> None:
        self._storage_options: dict[str, Any] = {
            name: self._options.get(name, value) for name, value in given.items() if value is not None
        }

    @property
    def cache(self) -> Cache:
        """The cache, opened once for all instances of this process with the same options.

        Closed, it stays so for this instance, and is opened anew for one that is made then.
        Raises: as ``forebay.open``.
        """
        if self._opened is None:
            self._opened = cache_of(self._options)
        return self._opened

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop for what is done many files at a time; a forked child takes its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return self._loop

    @property
    def fsid(self) -> str:
        """What tells this cache from others: its directory."""
        return f"forebay:{self.cache.path}"

    def _place(self, path: str) -> Place:
        """Return what a path, with or without the protocol, means. Raises: NotFound (no dataset)."""
        return place_of(self.cache, self._strip_protocol(path), self._target_protocol)

    def _object(self, path: str) -> Place:
        """Return as ``_place``. Raises: IsADirectoryError (the list of datasets)."""
        place = self._place(path)
        if not place.path:
            raise IsADirectoryError(errno.EISDIR, "is the list of datasets", path)
        return place

    def _where(self, path: str) -> str:
        """Return where an object lies in the cache. Raises: as ``_object``."""
        try:
            where = path if "://" in path else self._strip_protocol(path)
        except TypeError:
            # One of pathlib's.
            where = self._strip_protocol(path)
        if where and "://" not in where and self._target_protocol is None:
            return str(where)
        return self._object(path).path

    async def _in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a blocking call without blocking the loop."""
        return await asyncio.wrap_future(_threads.get().submit(partial(call, *args, **kwargs)))


def side_by_side(calls: Iterable[Callable[[], _T]]) -> list[_T]:
    """Make calls in other threads, none of which does this itself, and return their results in order.

    Raises: what the first of them raised.
    """
    threads = _threads_beneath.get()
    return [future.result() for future in [threads.submit(call) for call in calls]]


def described(place: Place, status: FileStatus) -> dict[str, Any]:
    """Return what ``info`` says of an object or a directory."""
    name = place.asked(status.path)
    if status.is_dir:
        return {"name": name, "size": 0, "type": "directory"}
    return {
        "name": name,
        "size": status.size,
        "type": "file",
        "mtime": status.mtime_ns / 1e9,
        "version": status.version,
    }
