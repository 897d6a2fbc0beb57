"""What a peer is asked for, and how the answers are heard, over sockets and over gRPC alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol, TypeAlias

from forebay.peer.data.deadline import Deadline, Watch, never
from forebay.peer.data.errors import down
from forebay.peer.data.latency import Latency
from forebay.peer.data.replies import NOT_HERE, SIGNS_OF_LIFE, BlockReplies, error_of
from forebay.peer.frames import (
    REQUESTS_MAX,
    Data,
    FrameError,
    Head,
    Kind,
    ObjectRequest,
    identity_of,
    pack_frame,
    pack_object_question,
    pack_read,
    parse_objects,
)
from forebay.remote import BlockRequest, RemoteObject

_Page: TypeAlias = list[RemoteObject]


def ignore() -> None:
    """Do nothing at a sign of life."""


class Carrier(Protocol):
    """What carries a question to the peer and the frames of its answer back, see ``Connection``."""

    def take_ids(self, count: int) -> int: ...

    def ask(self, frame: bytes, watch: Watch) -> None: ...

    def head(self, watch: Watch) -> Head: ...

    def fill(self, head: Head, into: memoryview, watch: Watch) -> None: ...

    def body(self, head: Head, watch: Watch) -> Data: ...


class Link:
    """One peer as this process asks it. Threads: any.

    All that asks is blocking, within its deadline, and raises PeerDown (unreachable, silent, broken, not to
    be trusted: ask somebody else), PeerRefused (it does not answer this process), Cancelled, and what the
    callbacks raise. What a peer says of the source is raised as NotFound, Stale or PermissionError; None is
    the answer of a peer that cannot say.
    """

    def __init__(self, address: str) -> None:
        """Ask the peer that is named so in errors."""
        self.address: Final = address
        self.latency: Final = Latency()

    @property
    def in_flight(self) -> int:
        """How many questions this process has under way."""
        raise AssertionError("each kind has its own")

    def read(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None] = ignore,
        *,
        only_cached: bool = False,
        deadline: Deadline,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        """Fill each buffer, as long as its request says, with the block; came(index) says that it is there.

        Both are called in this thread. What never came by the return is not to be had from this peer, which
        with only_cached looks nowhere but in its store. No buffer is written to after the return. Raises: as
        the class says, when all that comes has come; ValueError (a buffer of another length).
        """
        watch = Watch(deadline, cancelled)
        for start in range(0, len(requests), REQUESTS_MAX):
            part = slice(start, start + REQUESTS_MAX)
            self._read(
                requests[part],
                buffers[part],
                lambda index, start=start: came(start + index),  # type: ignore[misc]
                alive,
                only_cached,
                watch,
            )

    def touch(
        self,
        dataset: str,
        path: str,
        offset: int,
        length: int,
        alive: Callable[[], None] = ignore,
        *,
        deadline: Deadline,
        cancelled: Callable[[], bool] = never,
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return what an object is and its bytes from offset on, at most length of them."""
        question = ObjectRequest(dataset, path, offset, length)
        with self._asked(Kind.TOUCH, question, alive, Watch(deadline, cancelled)) as answer:
            if (first := answer.next(Kind.OBJECT)) is None:
                return None
            (found,) = _objects(first, 1)
            data = answer.data(length)
            return None if data is None else (found, data)

    def stat(
        self,
        dataset: str,
        path: str,
        alive: Callable[[], None] = ignore,
        *,
        deadline: Deadline,
        cancelled: Callable[[], bool] = never,
    ) -> RemoteObject | None:
        """Describe an object or a directory."""
        question = ObjectRequest(dataset, path)
        with self._asked(Kind.STAT, question, alive, Watch(deadline, cancelled)) as answer:
            body = answer.next(Kind.OBJECT)
            return None if body is None else _objects(body, 1)[0]

    def list(
        self,
        dataset: str,
        directory: str,
        alive: Callable[[], None] = ignore,
        *,
        deadline: Deadline,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[list[RemoteObject]] | None:
        """Yield what lies in a directory, page by page; raises at once what the first page does."""
        pages = self._pages(ObjectRequest(dataset, directory), alive, Watch(deadline, cancelled))
        first = next(pages)
        return None if first is None else _rest_of(first, pages)

    def view(self, *, deadline: Deadline, cancelled: Callable[[], bool] = never) -> bytes | None:
        """Return the peer's view of the ring, a View of forebay.proto."""
        watch = Watch(deadline, cancelled)
        with self._connection(watch) as connection:
            id = connection.take_ids(1)
            connection.ask(pack_frame(Kind.VIEW, id), watch)
            body = _Answer(connection, id, 0, "", self.address, ignore, watch).next(Kind.DATA)
            return None if body is None else bytes(body)

    def _read(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
        only_cached: bool,
        watch: Watch,
    ) -> None:
        """Ask for one batch."""
        with self._connection(watch) as connection:
            first_id = connection.take_ids(len(requests))
            replies = BlockReplies(self.address, requests, buffers, first_id, came)
            begun_s = time.monotonic()
            connection.ask(pack_read(requests, first_id, only_cached=only_cached), watch)
            head = connection.head(watch)
            self.latency.add(time.monotonic() - begun_s)
            while True:
                alive()
                _hold(watch, self.address)
                into = replies.place(head)
                connection.fill(head, into, watch)
                replies.take(head, into)
                if replies.are_complete:
                    break
                head = connection.head(watch)
        replies.finish()

    @contextmanager
    def _asked(
        self, kind: Kind, question: ObjectRequest, alive: Callable[[], None], watch: Watch
    ) -> Iterator[_Answer]:
        """Ask about an object; the body hears the whole answer."""
        with self._connection(watch) as connection:
            id = connection.take_ids(1)
            connection.ask(pack_object_question(kind, id, question), watch)
            identity = identity_of(question.dataset, question.path)
            path = f"{question.dataset}/{question.path}"
            answer = _Answer(connection, id, identity, path, self.address, alive, watch)
            yield answer
        if answer.error is not None:
            raise answer.error

    def _pages(
        self, question: ObjectRequest, alive: Callable[[], None], watch: Watch
    ) -> Iterator[_Page | None]:
        """Yield the pages; None alone where the peer cannot say."""
        with self._asked(Kind.LIST, question, alive, watch) as answer:
            is_first = True
            while (body := answer.next(Kind.PAGE, Kind.DATA)) is not None:
                if answer.kind is Kind.DATA:
                    break
                yield parse_objects(body)
                watch.heard()
                is_first = False
            else:
                if answer.error is None:
                    if not is_first:
                        raise FrameError("the listing ends in its middle")
                    yield None
                return
            if is_first:
                yield []

    def _connection(self, watch: Watch) -> AbstractContextManager[Carrier]:
        """Give what carries one question; what cannot be understood is PeerDown."""
        raise AssertionError("each kind has its own")


def _rest_of(first: _Page, pages: Iterator[_Page | None]) -> Iterator[_Page]:
    yield first
    yield from (page for page in pages if page is not None)


class _Answer:
    """The answer to one question about an object, as it comes."""

    def __init__(
        self,
        connection: Carrier,
        id: int,
        identity: int,
        path: str,
        address: str,
        alive: Callable[[], None],
        watch: Watch,
    ) -> None:
        self._connection = connection
        self._id = id
        self._identity = identity
        self._path = path
        self._address = address
        self._alive = alive
        self._watch = watch
        self.kind = Kind.PROGRESS
        self.error: OSError | None = None

    def next(self, *wanted: Kind) -> Data | None:
        """Return the body of the next frame of a kind that is wanted; None at another end, see error."""
        while True:
            head = self._head()
            body = self._connection.body(head, self._watch)
            self.kind = head.kind
            if head.kind in wanted:
                return body
            if head.kind in SIGNS_OF_LIFE:
                continue
            if head.kind not in NOT_HERE:
                self.error = error_of(head, body, self._path, self._address)
            return None

    def data(self, length_max: int) -> memoryview | None:
        """Return the bytes that follow an object. Raises: FrameError (not in order; too many)."""
        buffer, got_bytes = memoryview(b""), 0
        while True:
            head = self._head()
            if head.kind is not Kind.DATA:
                self._connection.body(head, self._watch)
                if head.kind in SIGNS_OF_LIFE:  # between two pieces, or before the first
                    continue
                if head.kind in NOT_HERE:
                    return None
                raise FrameError(f"{head.kind.name} frame in the middle of data")
            if not got_bytes:
                if head.total > length_max:
                    raise FrameError(f"{head.total} bytes of {length_max} that were asked for")
                buffer = memoryview(bytearray(head.total))
            if head.total != len(buffer) or head.begin != got_bytes:
                raise FrameError(f"byte {head.begin} of {head.total} where byte {got_bytes} comes next")
            self._connection.fill(head, buffer[got_bytes : got_bytes + head.body_bytes], self._watch)
            got_bytes += head.body_bytes
            if got_bytes == head.total:
                return buffer.toreadonly()
            if not head.body_bytes:
                raise FrameError("a DATA frame without data")

    def _head(self) -> Head:
        head = self._connection.head(self._watch)
        self._alive()
        _hold(self._watch, self._address)
        while head.id != self._id and head.kind in SIGNS_OF_LIFE:  # of the question before
            self._connection.body(head, self._watch)
            _hold(self._watch, self._address)
            head = self._connection.head(self._watch)
        if head.id != self._id or head.identity != self._identity:
            raise FrameError(f"{head.kind.name} frame of request {head.id} is about something else")
        return head


def _hold(watch: Watch, address: str) -> None:
    """Have a wait end in time though something comes all the time. Raises: PeerDown; Cancelled."""
    try:
        watch.hold()
    except TimeoutError as error:
        raise down(address, error) from error


def _objects(body: Data, count: int) -> list[RemoteObject]:
    objects = parse_objects(body)
    if len(objects) != count:
        raise FrameError(f"{len(objects)} objects where {count} are wanted")
    return objects
