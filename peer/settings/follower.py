"""The thread of a client that takes over the settings of its group.

It asks one member now and then, another each time, and closes the way to it at once; a fork that comes in
between has it asked again. Of all processes that have one cache directory open one asks for all.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

# Here, and not where they are first used: a fork in the middle of an import would leave the child without it.
import forebay.peer.links  # noqa: F401
from forebay.errors import Closed
from forebay.peer.failures import Failures
from forebay.peer.forks import apart_from_forks
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.settings.keeper import AdminStub
from forebay.peer.settings.local import LocalSettings
from forebay.peer.settings.taken import Aside, TakenSettings
from forebay.peer.settings.wire import Incoming, summary_of

if TYPE_CHECKING:
    from forebay.peer.group import Group

_log = logging.getLogger(__name__)

PULL_EVERY_S: Final = 10.0
_RETRY_S: Final = 0.2
_FIRST_S: Final = 30.0
_CALL_S: Final = 60.0
_CLOSE_PATIENCE_S: Final = 1.0
_FILE_MODE: Final = 0o600


class Follower:
    """Takes over settings until it is stopped. Threads: any."""

    def __init__(
        self,
        group: Group,
        folder: str,
        local: Callable[[], LocalSettings | None],
    ) -> None:
        """Ask members of this group; local: this host's settings, None once nobody has the cache any more.

        What is known lies in folder.
        """
        self._group: Final = group
        self._folder: Final = folder
        self._local: Final = local
        self._lock_file: Final = Path(folder, "client-settings.lock")
        self._aside: Final = Aside()
        self._failures: Final = Failures(_log, "settings of the group could not be taken over; asked again")
        # Processes begin with different members.
        self._turns = os.getpid()
        self._stopping: Final = threading.Event()
        self._asked: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="forebay-follower", daemon=True)

    def start(self) -> None:
        """Begin, and wait for the first answer where nobody has asked lately: as long as a read would.

        Where nobody ever has nothing can be read before, so it is waited for until it holds here.
        """
        is_new, is_fresh = not self._lock_file.exists(), self._is_fresh()
        self._thread.start()
        if not is_fresh:
            self._asked.wait(_FIRST_S if is_new else self._group.limits.peer_timeout_s)

    def stop(self) -> None:
        """Stop; what is under way is waited for, a moment at most. In a forked child there is nothing."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_PATIENCE_S)

    def turn(self) -> bool:
        """Ask, unless another process has done so lately; return whether no fork came between."""
        with self._alone() as descriptor:
            if self._is_fresh():
                return True
            try:
                self._pull()
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.CANCELLED:
                    return False
                _log.info("no settings from the group: %s", error)
            # When it was asked last: the time of the file's change, once there is something in it.
            os.pwrite(descriptor, b"\n", 0)
            return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            is_done = True
            try:
                is_done = self.turn()
            except Closed:
                return
            except (OSError, ValueError, LookupError) as error:
                self._aside.tell("*", str(error))
            except Exception as error:  # noqa: BLE001  (else this client would have the settings of now for good)
                self._failures.tell(error)
            if self._local() is None:
                return
            if is_done:
                self._asked.set()
            self._stopping.wait(PULL_EVERY_S if is_done else _RETRY_S)

    def _pull(self) -> None:
        self._turns += 1
        local, member = self._local(), self._group.one_admin(self._turns)
        if local is None or member is None:
            return
        taken = TakenSettings(local, self._folder, self._aside)
        call = _Call()
        with Incoming() as incoming:
            with apart_from_forks(call.cancel), member as stub:
                for message in call.begin(stub.admin, taken.summary()):
                    incoming.add(message)
            incoming.take(taken)

    def _is_fresh(self) -> bool:
        try:
            status = self._lock_file.stat()
        except FileNotFoundError:
            return False
        return status.st_size > 0 and 0 <= time.time() - status.st_mtime < PULL_EVERY_S

    @contextmanager
    def _alone(self) -> Iterator[int]:
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                yield descriptor
            finally:
                # Not by closing alone, for a child that was forked meanwhile has it open as well.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


class _Call:
    """A call that may be cancelled before it has begun."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._is_cancelled = False
        self._call: Any = None

    def begin(self, admin: AdminStub, known: Mapping[str, tuple[int, str]]) -> Iterable[pb.Setting]:
        call = admin.PullSettings(summary_of(known), timeout=_CALL_S)
        with self._lock:
            self._call = call
            if self._is_cancelled:
                call.cancel()
        return cast(Iterable[pb.Setting], call)

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._call is not None:
                self._call.cancel()
