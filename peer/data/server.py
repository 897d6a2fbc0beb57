"""The data port of a member: answers frames over sockets, a thread for each connection.

A connection begins with HELLO, which carries who asks and his token; whoever sends anything else, or
nothing, is dropped. Questions of one connection may overlap: while one waits for the under storage the next
is read.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forebay.peer.answer import Answerer
from forebay.peer.data.wire import Watcher, Wire, accept
from forebay.peer.failures import Failures
from forebay.peer.frames import Data, FrameError, Kind, pack_frame, pack_head, pack_text, parse_hello

_log: Final = logging.getLogger(__name__)

_BACKLOG: Final = 256
_CLOSE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class DataLimits:
    """What one data port puts up with."""

    connections: int = 512
    spare_s: float = 5.0  # without a byte either way, after which one gives way where there are too many
    greeting_s: float = 5.0  # from the connection to the end of its HELLO, TLS included
    idle_s: float = 600.0  # without a question
    stall_s: float = 30.0  # in the middle of a question, or with an answer that is not taken


# Takes a HelloRequest, the token and the address that both come from; returns the HelloReply and who asks, as
# permissions know him. Raises PermissionError or ValueError (ConfigError) with what he is told.
Welcome = Callable[[bytes, str | None, str], tuple[bytes, Any]]


class DataServer:
    """Listens on the data port. Threads: any."""

    def __init__(
        self,
        answerer: Answerer,
        welcome: Welcome,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        limits: DataLimits = DataLimits(),
    ) -> None:
        """Answer by answerer, which others may use as well, whom welcome lets in; tls as of now."""
        self._answerer: Final = answerer
        self._welcome: Final = welcome
        self._tls: Final = tls
        self._limits: Final = limits
        self._lock: Final = threading.Lock()
        self._serving: Final[dict[threading.Thread, _Asker]] = {}
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._failures: Final = Failures(_log, "a connection could not be let in; others may be")
        self._is_over = False

    @property
    def connection_count(self) -> int:
        """How many connections there are."""
        return len(self._serving)

    def start(self, host: str, port: int = 0) -> int:
        """Listen, and return the port, which is a free one for 0. Raises: OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # All addresses are those of IPv4 as well, as they are for gRPC.
        is_dual = host == "::" and socket.has_dualstack_ipv6()
        self._listener = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=is_dual
        )
        self._acceptor = threading.Thread(target=self._accept, name="forebay-data", daemon=True)
        self._acceptor.start()
        return int(self._listener.getsockname()[1])

    def stop_listening(self) -> None:
        """Let nobody in any more; who is in may go on."""
        self._is_over = True
        if self._listener is not None and self._acceptor is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._acceptor.join()
            self._listener.close()

    def close(self) -> None:
        """Stop listening, end every connection and wait for their threads; ``Answerer.drain`` comes first."""
        self.stop_listening()
        with self._lock:
            serving = dict(self._serving)
        for asker in serving.values():
            asker.end()
        end_s = time.monotonic() + _CLOSE_TIMEOUT_S
        for thread in serving:
            thread.join(max(end_s - time.monotonic(), 0.0))

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if self._is_over:
                    return
                # Out of descriptors, or the connection is gone again: others may still come.
                self._failures.tell(error)
                time.sleep(0.1)
                continue
            try:
                self._let_in(sock, str(address[0]))
            except Exception as error:  # noqa: BLE001  (out of memory: others may still come)
                self._failures.tell(error)
                sock.close()

    def _let_in(self, sock: socket.socket, address: str) -> None:
        asker = _Asker(sock, address, self._limits)
        thread = threading.Thread(
            target=self._serve, args=(asker,), name=f"forebay-data {address}", daemon=True
        )
        with self._lock:
            is_full = len(self._serving) >= self._limits.connections and not self._has_one_less()
            if not is_full:
                self._serving[thread] = asker
        if is_full:
            _log.warning("%s: refused, there are %d connections", address, self._limits.connections)
            sock.close()
            return
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("%s: refused, %s", address, error)
            with self._lock:
                del self._serving[thread]
            sock.close()

    def _has_one_less(self) -> bool:
        """End the connection that is idle for longest, if it is for so long; with the lock.

        Its asker has others, or connects anew: links look at a connection before they use it again.
        """
        thread, asker = max(self._serving.items(), key=lambda item: item[1].idle_s)
        if asker.idle_s < self._limits.spare_s:
            return False
        del self._serving[thread]
        asker.end()
        return True

    def _serve(self, asker: _Asker) -> None:
        """Answer one connection until it ends."""
        try:
            caller = asker.greet(self._tls, self._welcome)
            while True:
                asker.answer_next(self._answerer, caller)
        except EOFError:
            pass
        except (FrameError, OSError) as error:
            _log.info("%s: connection closed: %s", asker.address, error)
        finally:
            with self._lock:
                self._serving.pop(threading.current_thread(), None)
            asker.close()


class _Asker:
    """One connection at the server's side, and the sink for its answers."""

    def __init__(self, sock: socket.socket, address: str, limits: DataLimits) -> None:
        self.address: Final = address
        self._socket: Final = sock
        self._limits: Final = limits
        # When a question came last, or something was sent: signs of life, too.
        self._moved_s = time.monotonic()
        self._wire: Wire | None = None
        self._sending: Final = threading.Lock()
        self._body: memoryview = memoryview(bytearray(1 << 16))

    @property
    def idle_s(self) -> float:
        """For how long nothing has come or gone."""
        return 0.0 if self._sending.locked() else time.monotonic() - self._moved_s

    def greet(self, tls: Callable[[], ssl.SSLContext] | None, welcome: Welcome) -> Any:
        """Hear who asks, tell who answers, and return the former. Raises: FrameError; OSError; EOFError."""
        watch = _Patience(self._limits.greeting_s, renewed=False)
        wire = self._wire = accept(self._socket, watch, None if tls is None else tls())
        head = wire.receive_head(watch)
        if head.kind is not Kind.HELLO:
            raise FrameError(f"{head.kind.name} frame where HELLO is to come")
        body = memoryview(bytearray(head.body_bytes))
        wire.receive(body, watch)
        head.check(body)
        hello, token = parse_hello(body)
        try:
            reply, caller = welcome(hello, token, self.address)
        except (PermissionError, ValueError) as error:
            text = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.send([pack_frame(Kind.REFUSED, head.id, pack_text(text))])
            raise ConnectionRefusedError(f"refused: {text}") from error
        self.send([pack_head(Kind.DATA, head.id, reply, len(reply), 0, len(reply)), reply])
        return caller

    def answer_next(self, answerer: Answerer, caller: Any) -> None:
        """Wait for a question and answer it, or have it answered."""
        assert self._wire is not None
        head = self._wire.receive_head(_Patience(self._limits.idle_s))
        self._moved_s = time.monotonic()
        if head.body_bytes > len(self._body):
            self._body = memoryview(bytearray(head.body_bytes))
        body = self._body[: head.body_bytes]
        if body:
            self._wire.receive(body, _Patience(self._limits.stall_s))
        head.check(body)
        answerer.answer(head, body, caller, self)

    def send(self, parts: Sequence[Data]) -> None:
        """Send frames, and end the connection where they are not taken: what follows would have no begin."""
        assert self._wire is not None
        with self._sending:
            try:
                self._wire.send(parts, _Patience(self._limits.stall_s))
            except OSError:
                self._wire.end()
                raise
            self._moved_s = time.monotonic()

    def send_at_once(self, frame: bytes) -> None:
        """Send a sign of life, unless something is being sent, which is one, or nothing would go out."""
        assert self._wire is not None
        if not self._sending.acquire(blocking=False):
            return
        try:
            if self._wire.can_send():
                self._moved_s = time.monotonic()
                self._wire.send([frame], _Patience(self._limits.stall_s))
        except (OSError, ValueError):  # gone; closed
            self._wire.end()
        finally:
            self._sending.release()

    def end(self) -> None:
        """End the connection and wake its thread."""
        if self._wire is not None:
            self._wire.end()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor up, when nobody sends any more."""
        self.end()
        with self._sending:
            if self._wire is not None:
                self._wire.close()
            self._socket.close()


class _Patience(Watcher):
    """Waits so long for each bit of progress, or so long in all."""

    def __init__(self, patience_s: float, *, renewed: bool = True) -> None:
        self._patience_s = patience_s
        self._is_renewed = renewed
        self._end_s = time.monotonic() + patience_s

    def heard(self) -> None:
        if self._is_renewed:
            self._end_s = time.monotonic() + self._patience_s

    def hold(self) -> None:
        if time.monotonic() >= self._end_s:
            raise TimeoutError(f"nothing came or was taken for {self._patience_s:g} s")
