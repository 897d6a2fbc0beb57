"""The threads in which a member's gRPC services do what may block, apart by what they wait for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from forebay.peer.limits import ServerLimits


class ServiceThreads:
    """A pool for each kind of call, and one thread for the member's end, which waits for none of them."""

    def __init__(self, limits: ServerLimits) -> None:
        """Start none yet."""
        self.questions: Final = ThreadPoolExecutor(limits.question_threads, "forebay-question")
        self.streams: Final = ThreadPoolExecutor(limits.stream_threads, "forebay-stream")
        self.work: Final = ThreadPoolExecutor(limits.work_threads, "forebay-work")
        self.ending: Final = ThreadPoolExecutor(1, "forebay-end")

    def close(self) -> None:
        """Take on nothing more, and wait for what they are at."""
        for pool in (self.questions, self.streams, self.work, self.ending):
            pool.shutdown(cancel_futures=True)
