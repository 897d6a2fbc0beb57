"""Sockets that carry frames: whole reads and writes that look up at times, whether to go on waiting.

A plain socket blocks in the kernel, for a tick at most, so that a large body is one call; one with TLS never
blocks but in poll, since two threads may not be inside one TLS connection at once.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from forebay.peer.frames import HEAD_BYTES, Data, Head, parse_head

# How late a cancelled or overdue wait ends, at most; a wait has this many seconds a look.
CLIENT_TICK_S: Final = 0.01
SERVER_TICK_S: Final = 0.5

# IOV_MAX of Linux.
_PARTS_MAX: Final = 1024
# What keeps small frames from being a TLS record each.
_RECORD_BYTES: Final = 16 << 10


class Watcher(Protocol):
    """Told of each sign of life, and asked at each tick and after each part if to go on; raises if not."""

    def heard(self) -> None: ...

    def hold(self) -> None: ...


class Wire(Protocol):
    """A connected socket. One thread at a time receives, one sends; both may be at it together."""

    def receive(self, into: memoryview, watch: Watcher) -> None:
        """Fill into. Raises: EOFError (the peer ended before its first byte); OSError; what watch raises."""
        ...

    def receive_head(self, watch: Watcher) -> Head:
        """Return the next frame's head. Raises: FrameError; as ``receive``."""
        ...

    def send(self, parts: Sequence[Data], watch: Watcher) -> None:
        """Send all of the parts, in order. Raises: OSError; what watch raises."""
        ...

    def is_quiet(self) -> bool:
        """Whether the peer has neither ended the connection nor sent anything that was not received."""
        ...

    def can_send(self) -> bool:
        """Whether a few bytes would go out without a wait."""
        ...

    def end(self) -> None:
        """End the connection for all who have the socket, and wake who waits on it; ``close`` follows."""
        ...

    def close(self) -> None:
        """Give the descriptor up, in this process alone: after a fork the other one goes on."""
        ...


class _Base:
    """What both kinds have in common."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket: Final = sock
        self._head: Final = memoryview(bytearray(HEAD_BYTES))

    def receive_head(self, watch: Watcher) -> Head:
        self.receive(self._head, watch)
        return parse_head(self._head)

    def receive(self, into: memoryview, watch: Watcher) -> None:
        got_bytes, size_bytes = 0, len(into)
        while got_bytes < size_bytes:
            count = self._receive_some(into[got_bytes:] if got_bytes else into)
            if count is None:
                watch.hold()
            elif count:
                got_bytes += count
                watch.heard()
                if got_bytes < size_bytes:
                    watch.hold()  # else who sends a byte at each tick would have no end
            elif got_bytes:
                raise ConnectionResetError(
                    errno.ECONNRESET, f"closed after {got_bytes} of {size_bytes} bytes"
                )
            else:
                raise EOFError("the connection was closed")

    def _receive_some(self, into: memoryview) -> int | None:
        raise AssertionError("each kind has its own")

    def can_send(self) -> bool:
        return _poll(self._socket, select.POLLOUT, 0.0)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class PlainWire(_Base):
    """A socket without TLS."""

    def __init__(self, sock: socket.socket, tick_s: float) -> None:
        """Take the socket, which becomes a blocking one with a tick."""
        super().__init__(sock)
        sock.settimeout(None)
        tick = struct.pack("ll", int(tick_s), int(tick_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)

    def _receive_some(self, into: memoryview) -> int | None:
        try:
            return self._socket.recv_into(into, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            return None

    def send(self, parts: Sequence[Data], watch: Watcher) -> None:
        left: list[Data] = list(parts)
        while left:
            try:
                sent_bytes = self._socket.sendmsg(left[:_PARTS_MAX])
            except BlockingIOError:
                watch.hold()
                continue
            watch.heard()
            _drop(left, sent_bytes)
            if left:
                watch.hold()

    def is_quiet(self) -> bool:
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class TlsWire(_Base):
    """A socket with TLS, its handshake done."""

    def __init__(self, sock: ssl.SSLSocket, tick_s: float) -> None:
        """Take the socket, which becomes a non-blocking one."""
        super().__init__(sock)
        sock.settimeout(0.0)
        self._tick_s: Final = tick_s
        self._tls: Final = sock
        self._lock: Final = threading.Lock()

    def _receive_some(self, into: memoryview) -> int | None:
        return self._turn(lambda: self._tls.recv_into(into))

    def send(self, parts: Sequence[Data], watch: Watcher) -> None:
        for part in _records(parts):
            with memoryview(part) as view:
                sent_bytes = 0
                while sent_bytes < len(view):
                    rest = view[sent_bytes:]
                    count = self._turn(lambda rest=rest: self._tls.send(rest))  # type: ignore[misc]
                    if count is None:
                        watch.hold()
                    elif not count:
                        raise ConnectionResetError(errno.ECONNRESET, "closed while frames were being sent")
                    else:
                        sent_bytes += count
                        watch.heard()
                        watch.hold()

    def is_quiet(self) -> bool:
        return not self._tls.pending() and not _poll(self._tls, select.POLLIN, 0.0)

    def _turn(self, step: Callable[[], int]) -> int | None:
        """Return what the step returns; None after a tick in which it could do nothing."""
        try:
            with self._lock:
                return step()
        except ssl.SSLWantReadError:
            event = select.POLLIN
        except ssl.SSLWantWriteError:
            event = select.POLLOUT
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0
        _poll(self._tls, event, self._tick_s)
        return None


def accept(sock: socket.socket, watch: Watcher, context: ssl.SSLContext | None) -> Wire:
    """Take a connection that was accepted, with TLS where a context is given.

    Raises: OSError; what watch raises.
    """
    return wire_of(sock, watch, context, SERVER_TICK_S, None)


def wire_of(
    sock: socket.socket,
    watch: Watcher,
    context: ssl.SSLContext | None,
    tick_s: float,
    server_name: str | None,
) -> Wire:
    """Have a connection ready for frames, with TLS where a context is given.

    server_name: what the other is to prove to be, None: it has connected to us. Raises: OSError; what watch
    raises.
    """
    _tune(sock)
    if context is None:
        return PlainWire(sock, tick_s)
    tls = context.wrap_socket(
        sock, server_side=server_name is None, server_hostname=server_name, do_handshake_on_connect=False
    )
    try:
        _shake_hands(tls, watch, tick_s)
    except BaseException:
        tls.close()
        raise
    return TlsWire(tls, tick_s)


def _shake_hands(sock: ssl.SSLSocket, watch: Watcher, tick_s: float) -> None:
    """Shake hands for TLS. Raises: OSError; what watch raises."""
    sock.settimeout(0.0)
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            event = select.POLLIN
        except ssl.SSLWantWriteError:
            event = select.POLLOUT
        _poll(sock, event, tick_s)
        watch.hold()


def _tune(sock: socket.socket) -> None:
    """Have small frames sent at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _poll(sock: socket.socket, event: int, timeout_s: float) -> bool:
    """Wait for an event of poll, or an error; return whether it has come."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(timeout_s * 1000))


def _drop(parts: list[Data], size_bytes: int) -> None:
    """Drop so many bytes from the front of the parts."""
    whole = 0
    for part in parts:
        if size_bytes < len(part):
            break
        size_bytes -= len(part)
        whole += 1
    del parts[:whole]
    if size_bytes:
        parts[0] = memoryview(parts[0])[size_bytes:]


def _records(parts: Sequence[Data]) -> list[Data]:
    """Join what is small with what follows it."""
    joined: list[Data] = []
    small = bytearray()
    for part in parts:
        if len(small) + len(part) <= _RECORD_BYTES:
            small += part
            continue
        if small:
            joined.append(small)
            small = bytearray()
        joined.append(part)
    if small:
        joined.append(small)
    return joined
