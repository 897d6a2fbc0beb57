"""Connects to peers: looks names up, and tries their addresses one behind the other, none to the end alone.

A name may have addresses where nobody answers. The next one is tried a moment after the one before, which
goes on; the first that connects is taken.
Source: RFC 8305, without its order of address families, which is the resolver's.
"""

from __future__ import annotations

import errno
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any, Final

from forebay.peer.data.wire import CLIENT_TICK_S, Watcher, Wire, wire_of

_NEXT_AFTER_S: Final = 0.25

_Info = tuple[Any, Any, int, str, Any]


def connect(
    address: tuple[str, int], watch: Watcher, context: ssl.SSLContext | None, server_name: str | None
) -> Wire:
    """Connect to the address, with TLS where a context is given. Raises: OSError; what watch raises."""
    cause: OSError = ConnectionError(errno.EADDRNOTAVAIL, "the name has no address")
    with closing(_connected(_look_up(address, watch), watch)) as found:
        for sock in found:
            if isinstance(sock, OSError):
                cause = sock
                continue
            try:
                return wire_of(sock, watch, context, CLIENT_TICK_S, server_name or address[0])
            except OSError as error:
                sock.close()
                cause = error
            except BaseException:
                sock.close()
                raise
    raise cause


def _look_up(address: tuple[str, int], watch: Watcher) -> list[_Info]:
    """Return the addresses of a name. Raises: OSError; what watch raises, while the resolver says nothing."""
    host, port = address
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # it is a name
    outcome: queue.SimpleQueue[list[_Info] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            outcome.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001  (raised by who waits)
            outcome.put(error)

    try:
        # The resolver has time-outs of its own, so that the thread ends, if late.
        threading.Thread(target=look_up, name=f"forebay-look-up {host}", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"the name cannot be looked up: {error}") from error
    while True:
        try:
            found = outcome.get(timeout=CLIENT_TICK_S)
        except queue.Empty:
            watch.hold()
            continue
        if isinstance(found, Exception):
            raise found
        return found


def _connected(infos: list[_Info], watch: Watcher) -> Generator[socket.socket | OSError, None, None]:
    """Yield a socket for each address that can be connected to, as they are, and why others cannot."""
    left = list(reversed(infos))
    pending: dict[int, socket.socket] = {}
    next_s = 0.0
    try:
        while left or pending:
            if left and (not pending or time.monotonic() >= next_s):
                sock = _begin(left.pop())
                if isinstance(sock, OSError):
                    yield sock
                    continue
                pending[sock.fileno()] = sock
                next_s = time.monotonic() + _NEXT_AFTER_S
            ready = _ready(pending)
            if not ready:
                watch.hold()
            for sock in ready:
                del pending[sock.fileno()]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    sock.close()
                yield _failure(code) if code else sock
    finally:
        for sock in pending.values():
            sock.close()


def _begin(info: _Info) -> socket.socket | OSError:
    """Begin to connect; return why it cannot be begun."""
    family, kind, protocol, _, target = info
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        return error
    sock.setblocking(False)
    code = sock.connect_ex(target)
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        return _failure(code)
    return sock


def _ready(pending: dict[int, socket.socket]) -> list[socket.socket]:
    """Wait for a tick; return those that are connected, or failed to be."""
    poll = select.poll()
    for descriptor in pending:
        poll.register(descriptor, select.POLLOUT)
    return [pending[descriptor] for descriptor, _ in poll.poll(CLIENT_TICK_S * 1000)]


def _failure(code: int) -> OSError:
    return OSError(code, f"cannot connect: {errno.errorcode.get(code, code)}")
