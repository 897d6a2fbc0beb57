"""A client's connection to a peer: greeted once, then used by one caller at a time, one question each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from forebay.errors import ConfigError
from forebay.peer.data.errors import down, refused
from forebay.peer.data.wire import Watcher, Wire
from forebay.peer.frames import Data, FrameError, Head, Kind, pack_hello, parse_text

_IDS: Final = 1 << 32


@dataclass(frozen=True)
class Greeting:
    """What is said and heard first on a connection.

    hello returns a HelloRequest, token the token or None, or raises ConfigError; check takes the HelloReply
    and raises ValueError (such as ConfigError) if this is no peer to ask.
    """

    hello: Callable[[], bytes]
    token: Callable[[], str | None]
    check: Callable[[bytes], None]


class Connection:
    """A wire and the ids of what is asked over it. Threads: one at a time.

    Everything raises PeerDown where the wire fails or the watch's time is over, FrameError, and Cancelled.
    """

    def __init__(self, wire: Wire, address: str) -> None:
        """Take the wire, which nothing was sent over."""
        self._wire: Final = wire
        self._address: Final = address
        self._next_id = 1

    def greet(self, greeting: Greeting, watch: Watcher) -> None:
        """Say who asks, and hear who answers. Raises: PeerRefused too."""
        try:
            hello = pack_hello(greeting.hello(), greeting.token())
        except ConfigError as error:  # a token that is not there any more: others, or the storage, are asked
            raise refused(self._address, str(error)) from error
        self.ask(hello, watch)
        head = self.head(watch)
        body = self.body(head, watch)
        if head.kind is Kind.REFUSED:
            raise refused(self._address, parse_text(body))
        if head.kind is Kind.BUSY:
            raise down(self._address, parse_text(body))
        if head.kind is not Kind.DATA:
            raise FrameError(f"{head.kind.name} frame where a greeting is answered")
        try:
            greeting.check(bytes(body))
        except ValueError as error:
            raise refused(self._address, str(error)) from error

    def take_ids(self, count: int) -> int:
        """Return the first of so many ids, which nothing on this connection had lately."""
        first = self._next_id if self._next_id + count <= _IDS else 1
        self._next_id = first + count
        return first

    def ask(self, frame: bytes, watch: Watcher) -> None:
        """Send a question."""
        try:
            self._wire.send([frame], watch)
        except OSError as error:
            raise down(self._address, error) from error

    def head(self, watch: Watcher) -> Head:
        """Return the head of the next answer."""
        try:
            return self._wire.receive_head(watch)
        except (OSError, EOFError) as error:
            raise down(self._address, error) from error

    def fill(self, head: Head, into: memoryview, watch: Watcher) -> None:
        """Receive a body into memory of its length, and hold it to its checksum."""
        if head.body_bytes:
            try:
                self._wire.receive(into, watch)
            except (OSError, EOFError) as error:
                raise down(self._address, error) from error
        head.check(into)

    def body(self, head: Head, watch: Watcher) -> Data:
        """Return a body in memory of its own."""
        body = memoryview(bytearray(head.body_bytes))
        self.fill(head, body, watch)
        return body

    def is_usable(self) -> bool:
        """Whether the peer is still there and has said nothing that nobody waits for."""
        return self._wire.is_quiet()

    def end(self) -> None:
        """End it for the peer as well."""
        self._wire.end()

    def close(self) -> None:
        """Give up the descriptor, in this process alone."""
        self._wire.close()
