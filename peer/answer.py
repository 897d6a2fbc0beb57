"""Answers frames from this member's cache, whatever carries them: hits at once, all else in threads.

What a member is asked it answers itself, from its store or from the under storage: nothing is passed on to
another member, so that no question goes in circles. While the under storage works the asker hears so, at
once and every PULSE_S from then on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import Any, Final, Protocol

from forebay.errors import NotAttached, NotFound, Stale
from forebay.peer.frames import (
    BLOCK_BYTES_MAX,
    BODY_BYTES_MAX,
    PIECE_BYTES_MAX,
    Data,
    FrameError,
    Head,
    Kind,
    ObjectRequest,
    ReadRequest,
    identity_of,
    pack_frame,
    pack_head,
    pack_objects,
    pack_text,
    parse_object_question,
    parse_read,
)
from forebay.peer.pulse import Pulse
from forebay.peer.sending import Sending
from forebay.remote import RemoteObject

_log: Final = logging.getLogger(__name__)

# What is sent in one go, of hits: little at first, so that the asker soon has something to do, then enough
# for a system call.
_FIRST_BURST_BYTES: Final = 128 << 10
_BURST_BYTES: Final = 1 << 20
# Requests that are held to the permissions and looked up together, before any of them is answered.
_LOOK_UPS: Final = 16
_BURST_HITS_MAX: Final = 64


class Hit(Protocol):
    """A view of a block, to be released."""

    def release(self) -> None: ...

    def __len__(self) -> int: ...

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Serves(Protocol):
    """What a member answers with, see forebay.cache.Serving. Threads: any."""

    def hits(self, blocks: Sequence[tuple[str, str, str, int]]) -> Iterator[Hit | None]: ...

    def bring(
        self, dataset: str, path: str, version: str, number: int, on_piece: Callable[[memoryview], None]
    ) -> None: ...

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, Hit | memoryview]: ...

    def stat(self, dataset: str, path: str) -> RemoteObject: ...

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]]: ...


class Sink(Protocol):
    """Where answers go. Threads: any; what one call is given is not mixed with another's."""

    def send(self, parts: Sequence[Data]) -> None:
        """Send frames; may wait for the asker to take them. The parts are the caller's after the return.

        Raises: OSError (the asker is gone, or takes nothing).
        """
        ...

    def send_at_once(self, frame: bytes) -> None:
        """Send a small frame if that takes no wait, else do nothing. Never raises."""
        ...


class Permits(Protocol):
    """Says who may ask what, see forebay.peer.security.permissions."""

    def check(self, what: str, caller: Any, dataset: str | None = None, path: str = "") -> None:
        """Return if it may be. Raises: PermissionError."""
        ...


@dataclass(frozen=True)
class AnswerLimits:
    """How much may be under way at a member, for all who ask together.

    While more than half of the threads wait for askers that take nothing, others are told BUSY as well.
    """

    threads: int = 32  # that wait for the under storage
    misses: int = 2048  # under way or waiting for a thread; who asks for more is told BUSY


class _Ended(Exception):  # noqa: N818  (a signal within this module, not an error)
    """The asker was told what is wrong, or is gone."""


class Answerer:
    """Answers questions for one member. Threads: any."""

    def __init__(
        self,
        serving: Serves,
        permissions: Permits,
        view: Callable[[], bytes],
        limits: AnswerLimits = AnswerLimits(),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer with what serving has; view gives the View of forebay.proto."""
        self._serving: Final = serving
        self._permissions: Final = permissions
        self._view: Final = view
        self._limits: Final = limits
        self._pulse: Final = Pulse()
        self._sending: Final = Sending(now_s)
        self._threads: Final = ThreadPoolExecutor(limits.threads, "forebay-answer")
        self._changed: Final = Condition()
        self._under_way = 0
        self._is_leaving = False

    def answer(self, head: Head, body: Data, caller: Any, sink: Sink) -> None:
        """Answer one question, whose checksum holds; what needs the under storage is answered later.

        Raises: FrameError (it is no question, or cannot be understood); OSError (the asker is gone).
        """
        if head.kind is Kind.READ:
            requests = parse_read(body)
            if self._is_leaving:
                sink.send(
                    [_text(Kind.BUSY, request.id, _identity(request), "leaving") for request in requests]
                )
            else:
                self._read(requests, caller, sink)
        elif head.kind in (Kind.TOUCH, Kind.STAT, Kind.LIST):
            request = parse_object_question(head.kind, body)
            self._ask_object(head.kind, head.id, request, caller, sink)
        elif head.kind is Kind.VIEW:
            self._tell_view(head.id, caller, sink)
        else:
            raise FrameError(f"{head.kind.name} frame where a question is to come")

    def drain(self, timeout_s: float) -> bool:
        """Take on nothing more, wait for what is under way, and say whether it has all ended."""
        with self._changed:
            self._is_leaving = True
            return self._changed.wait_for(lambda: not self._under_way, timeout_s)

    def close(self) -> None:
        """Take on nothing more, and wait for what the threads are at."""
        self._is_leaving = True
        self._threads.shutdown(cancel_futures=True)
        self._pulse.close()

    def _read(self, requests: list[ReadRequest], caller: Any, sink: Sink) -> None:
        """Answer with all hits, then have the misses brought."""
        burst = _Burst(sink)
        missed: list[tuple[ReadRequest, int]] = []
        try:
            for start in range(0, len(requests), _LOOK_UPS):
                missed += self._hits(requests[start : start + _LOOK_UPS], caller, burst)
            accepted = [each for each in missed if self._accept(each[0].id, each[1], burst)]
            for request, identity in accepted:
                burst.add(pack_frame(Kind.FETCHING, request.id, identity=identity))
            burst.flush()
        finally:
            burst.release()
        for request, identity in accepted:
            self._later(request.id, identity, sink, partial(self._bring, request, identity))

    def _hits(self, requests: list[ReadRequest], caller: Any, burst: _Burst) -> list[tuple[ReadRequest, int]]:
        """Answer what can be said at once; return what is to be brought, each with its identity."""
        missed = []
        permitted = self._permitted_of(requests, caller, burst)
        hits = self._serving.hits([request[2:6] for request, _ in permitted])
        for (request, identity), hit in zip(permitted, hits, strict=True):
            if hit is None:
                if request.only_cached:
                    burst.add(_text(Kind.MISS, request.id, identity, ""))
                else:
                    missed.append((request, identity))
            elif (found_bytes := len(hit)) != request.length:
                hit.release()
                burst.add(_wrong_length(request, identity, found_bytes))
            else:
                burst.add_hit(request.id, identity, hit)
        return missed

    def _permitted_of(
        self, requests: list[ReadRequest], caller: Any, burst: _Burst
    ) -> list[tuple[ReadRequest, int]]:
        """Return those that the caller may ask, each with its identity."""
        permitted = []
        last: tuple[str, str] | None = None
        for request in requests:
            identity = _identity(request)
            if (request.dataset, request.path) != last:
                if not self._permitted("READ", caller, request, identity, request.id, burst):
                    last = None
                    continue
                last = (request.dataset, request.path)
            permitted.append((request, identity))
        return permitted

    def _permitted(
        self,
        what: str,
        caller: Any,
        request: ReadRequest | ObjectRequest,
        identity: int,
        id: int,
        burst: _Burst,
    ) -> bool:
        try:
            self._permissions.check(what, caller, request.dataset, request.path)
        except PermissionError as error:
            burst.add(_text(Kind.REFUSED, id, identity, error.strerror or "permission denied"))
            return False
        return True

    def _bring(self, request: ReadRequest, identity: int, sink: Sink) -> None:
        """Send a block as it comes, its end only when all has gone well."""
        come_bytes = 0
        last = memoryview(b"")

        def send(piece: memoryview) -> None:
            nonlocal come_bytes, last
            if come_bytes + len(piece) > request.length:
                sink.send([_wrong_length(request, identity, come_bytes + len(piece))])
                raise _Ended
            if come_bytes + len(piece) < request.length:
                _send_data(sink, request.id, identity, piece, come_bytes, request.length)
            elif len(piece):
                last = piece
            come_bytes += len(piece)

        self._serving.bring(request.dataset, request.path, request.version, request.number, send)
        if come_bytes != request.length:
            sink.send([_wrong_length(request, identity, come_bytes)])
        else:
            _send_data(sink, request.id, identity, last, come_bytes - len(last), come_bytes)

    def _ask_object(self, kind: Kind, id: int, request: ObjectRequest, caller: Any, sink: Sink) -> None:
        identity = identity_of(request.dataset, request.path)
        burst = _Burst(sink)
        is_taken = self._permitted(kind.name, caller, request, identity, id, burst) and self._accept(
            id, identity, burst
        )
        burst.flush()
        if is_taken:
            step = {Kind.TOUCH: self._touch, Kind.STAT: self._stat, Kind.LIST: self._list}[kind]
            self._later(id, identity, sink, partial(step, id, identity, request))

    def _touch(self, id: int, identity: int, request: ObjectRequest, sink: Sink) -> None:
        found, data = self._serving.touch(request.dataset, request.path, request.offset, request.length)
        (body,) = pack_objects([found])
        with memoryview(data) as view:
            if len(view) > min(request.length, BLOCK_BYTES_MAX):
                raise ValueError(f"{request.path}: {len(view)} bytes where {request.length} were asked for")
            sink.send([pack_frame(Kind.OBJECT, id, body, identity)])
            _send_data(sink, id, identity, view, 0, len(view))

    def _stat(self, id: int, identity: int, request: ObjectRequest, sink: Sink) -> None:
        (body,) = pack_objects([self._serving.stat(request.dataset, request.path)])
        sink.send([pack_frame(Kind.OBJECT, id, body, identity)])

    def _list(self, id: int, identity: int, request: ObjectRequest, sink: Sink) -> None:
        for page in self._serving.list(request.dataset, request.path):
            for body in pack_objects(page):
                sink.send([pack_frame(Kind.PAGE, id, body, identity)])
        _send_data(sink, id, identity, memoryview(b""), 0, 0)

    def _tell_view(self, id: int, caller: Any, sink: Sink) -> None:
        try:
            self._permissions.check("VIEW", caller)
            body = self._view()
            if len(body) > BODY_BYTES_MAX:
                raise ValueError(f"a view of {len(body)} bytes, at most {BODY_BYTES_MAX}")
        except PermissionError as error:
            sink.send([_text(Kind.REFUSED, id, 0, error.strerror or "permission denied")])
        else:
            sink.send([pack_head(Kind.DATA, id, body, len(body), 0, len(body)), body])

    def _accept(self, id: int, identity: int, burst: _Burst) -> bool:
        """Count one more under way, or tell the asker that there are too many."""
        # Whoever waits behind them would hear that it goes on, and nothing else.
        is_stalled = 2 * self._sending.stalled_count() > self._limits.threads
        with self._changed:
            if not (self._is_leaving or is_stalled) and self._under_way < self._limits.misses:
                self._under_way += 1
                return True
        reason = "leaving" if self._is_leaving else "held up" if is_stalled else "too much at once"
        burst.add(_text(Kind.BUSY, id, identity, reason))
        return False

    def _later(self, id: int, identity: int, sink: Sink, step: Callable[[Sink], None]) -> None:
        """Run what was accepted in a thread; the asker hears that it goes on, and what became of it."""
        beat = self._pulse.begin(sink, pack_frame(Kind.PROGRESS, id, identity=identity))

        def run() -> None:
            try:
                counted = self._sending.to(sink)
                _told(id, identity, counted, partial(step, counted))
            finally:
                end()

        def end() -> None:
            self._pulse.end(beat)
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

        try:
            self._threads.submit(run)
        except RuntimeError:  # closed meanwhile
            end()


class _Burst:
    """Answers that are sent together, and the views that they are made of."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parts: list[Data] = []
        self._size_bytes = 0
        self._enough_bytes = _FIRST_BURST_BYTES
        self._held: list[tuple[memoryview, Hit]] = []

    def add(self, frame: bytes) -> None:
        self._parts.append(frame)

    def add_hit(self, id: int, identity: int, hit: Hit) -> None:
        view = memoryview(hit)
        self._held.append((view, hit))
        total = len(view)
        if total <= PIECE_BYTES_MAX:
            self._add_piece(pack_head(Kind.DATA, id, view, total, 0, total, identity), view)
        else:
            for begin in range(0, total, PIECE_BYTES_MAX):
                piece = view[begin : begin + PIECE_BYTES_MAX]
                self._add_piece(pack_head(Kind.DATA, id, piece, len(piece), begin, total, identity), piece)
                del piece  # a view is given up only when nothing refers to it
        if len(self._held) >= _BURST_HITS_MAX or not self._parts:
            self.flush()

    def _add_piece(self, head: bytes, piece: memoryview) -> None:
        self._parts += (head, piece)
        self._size_bytes += len(piece)
        if self._size_bytes >= self._enough_bytes:
            self._enough_bytes = min(2 * self._enough_bytes, _BURST_BYTES)
            self._send()

    def flush(self) -> None:
        self._send()
        self.release()

    def release(self) -> None:
        """Give the views up, sent or not."""
        self._parts.clear()
        while self._held:
            view, hit = self._held.pop()
            view.release()
            # After an error its traceback may hold a part; the view then goes with the last reference.
            with suppress(BufferError):
                hit.release()

    def _send(self) -> None:
        if self._parts:
            self._sink.send(self._parts)
        self._parts, self._size_bytes = [], 0


def _told(id: int, identity: int, sink: Sink, step: Callable[[], None]) -> None:
    """Take a step that sends its answer, and send what is wrong where it cannot."""
    try:
        try:
            step()
        except _Ended:
            return
        except Stale as error:
            frame = _text(Kind.STALE, id, identity, error.strerror or "")
        except NotFound as error:
            frame = _text(Kind.NOT_FOUND, id, identity, error.strerror or "")
        except PermissionError as error:
            frame = _text(Kind.FORBIDDEN, id, identity, error.strerror or "")
        except NotAttached as error:
            frame = _text(Kind.NOT_ATTACHED, id, identity, str(error))
        except (OSError, ValueError) as error:
            frame = _text(Kind.ERROR, id, identity, str(error))
        except Exception as error:  # noqa: BLE001  (else the asker hears nothing, and takes this member for dead)
            _log.exception("request %d could not be answered", id)
            frame = _text(Kind.ERROR, id, identity, f"{type(error).__name__}: {error}")
        else:
            return
        sink.send([frame])
    except OSError as error:
        _log.debug("request %d: whoever asked is gone: %s", id, error)


def _identity(request: ReadRequest) -> int:
    return identity_of(request.dataset, request.path, request.version, request.number)


def _send_data(sink: Sink, id: int, identity: int, data: memoryview, begin: int, total: int) -> None:
    for at in range(0, len(data), PIECE_BYTES_MAX) or (0,):
        piece = data[at : at + PIECE_BYTES_MAX]
        sink.send([pack_head(Kind.DATA, id, piece, len(piece), begin + at, total, identity), piece])


def _text(kind: Kind, id: int, identity: int, text: str) -> bytes:
    return pack_frame(kind, id, pack_text(text), identity)


def _wrong_length(request: ReadRequest, identity: int, found: int) -> bytes:
    text = f"{request.dataset}/{request.path}: block {request.number} has {found} bytes, not {request.length}"
    return _text(Kind.ERROR, request.id, identity, text)
