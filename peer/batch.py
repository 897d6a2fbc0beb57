"""A call for many blocks: one message to each peer, side by side, and what fails goes to the next in rank.

A round asks every block's next member, and the next round takes what its member could not be reached for.
What a member answered and did not have, though it was to bring it, is left to the caller: the under storage
was asked for it already. With one peer to ask, everything happens in the calling thread.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Final

from forebay.peer.member import Member
from forebay.peer.message import Message
from forebay.peer.patience import Patience
from forebay.peer.peers import Peers
from forebay.peer.ranks import Step
from forebay.remote import BlockRequest


class Batch:
    """One call of ``Group.fetch``. Threads: the calling one; takes blocks in any."""

    def __init__(
        self,
        peers: Peers,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        steps: Sequence[Sequence[Step]],
        came: Callable[[int], None],
        on_alive: Callable[[], None],
        timeout_s: float | None = None,
    ) -> None:
        """Prepare to ask, for each request, the members of its steps one after the other.

        timeout_s: how long each may be silent, if not as long as the limits say.
        """
        self.requests: Final = requests
        self.buffers: Final = buffers
        self._peers: Final = peers
        self._steps: Final = [deque(each) for each in steps]
        self._came: Final = came
        self._on_alive: Final = on_alive
        self._lock: Final = threading.Lock()
        self._has: Final = [False] * len(requests)
        self._is_ended = False
        self._error: BaseException | None = None
        limits = peers.limits
        silence_s = limits.peer_timeout_s if timeout_s is None else timeout_s
        self._patience: Final = Patience(silence_s, limits.total_timeout_s, peers.now_s)

    def run(self) -> None:
        """Ask until all have come, nobody is left or the time is over. Raises: as ``Remote.fetch``."""
        said: OSError | None = None
        self._peers.counts.add("blocks_asked", len(self.requests))
        try:
            while not self._patience.is_over and (messages := self._next_messages()):
                self._send_all(messages)
                if self._error is not None:
                    raise self._error
                for message in messages:
                    said = message.said or said
                    self._settle(message)
                self._patience.spend(max(message.silent_s for message in messages))
        finally:
            with self._lock:
                self._is_ended = True
            self._peers.counts.add("blocks_come", sum(self._has))
        if said is not None:
            raise said

    # ---- what messages need ----

    def take(self, index: int, data: bytearray | None = None) -> None:
        """Hand a block to the caller, once and never after the end."""
        with self._lock:
            if self._is_ended or self._has[index] or self._error is not None:
                return
            if data is not None:
                self.buffers[index][:] = data
            self._has[index] = True
            try:
                self._came(index)
            except BaseException as error:  # noqa: BLE001  (raised in the calling thread, once all have stopped)
                self._error = error

    def alive(self) -> None:
        """Tell the caller of a sign of life."""
        self._on_alive()

    def has(self, index: int) -> bool:
        """Say whether a block has come."""
        return self._has[index]

    def next_member(self, index: int) -> Member | None:
        """Return who would be asked for a block next."""
        return self._steps[index][0].member if self._steps[index] else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is wanted."""
        return self._is_ended or self._error is not None

    # ---- rounds ----

    def _next_messages(self) -> list[Message]:
        """Part what is missing by the members that are next, in the order of the requests."""
        suspects = self._peers.suspects.ids
        parts: dict[Step, list[int]] = defaultdict(list)
        for index, steps in enumerate(self._steps):
            while steps and not self._has[index]:
                step = steps.popleft()
                if step.member.id not in suspects:
                    parts[step].append(index)
                    break
        return [
            Message(self._peers, self, step.member, indexes, only_cached=step.only_cached)
            for step, indexes in parts.items()
        ]

    def _settle(self, message: Message) -> None:
        """Ask nobody else for what a member answered that was to bring it."""
        if message.was_answered and not message.only_cached:
            for index in message.indexes:
                self._steps[index].clear()

    def _send_all(self, messages: Sequence[Message]) -> None:
        if len(messages) == 1:
            messages[0].send(self._patience.deadline())
        else:
            _SideBySide(messages, self._send).run(self._peers, self._stop)

    def _send(self, message: Message) -> None:
        try:
            message.send(self._patience.deadline())
        except Exception as error:  # noqa: BLE001  (raised in the calling thread)
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error


class _SideBySide:
    """Messages that are sent at once: by the calling thread, and by as many others as are free."""

    def __init__(self, messages: Sequence[Message], send: Callable[[Message], None]) -> None:
        self._waiting: Final = deque(messages)
        self._send: Final = send
        self._changed: Final = threading.Condition()
        self._running = 0

    def run(self, peers: Peers, stop: Callable[[BaseException], None]) -> None:
        """Send all, and return when all have ended: they write to buffers of the caller."""
        for _ in range(len(self._waiting) - 1):
            if not peers.helpers.run(self._drain):
                break
        try:
            self._drain()
            self._wait()
        except BaseException as error:
            with self._changed:
                self._waiting.clear()
            stop(error)
            self._wait()
            raise

    def _drain(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                message = self._waiting.popleft()
                self._running += 1
            try:
                self._send(message)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._running and not self._waiting)
