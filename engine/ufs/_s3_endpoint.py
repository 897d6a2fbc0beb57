"""What a process has learnt of each server: how fast it may be asked, and how it answers.

One object for each server, shared by all datasets on it, and by nobody over a fork.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from forebay.ufs._throttle import Throttle


class Endpoint:
    """One server as this process knows it. Threads: any; what is learnt twice does no harm."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.throttle: Final = Throttle()
        # Whether a range is answered with 206, as obstore demands it. None: no answer has told yet.
        self.answers_206: bool | None = None
        # Whether the ETag in the answer to a PUT is the one that the object then has.
        self.tells_etags = False
        # Bucket -> how large an object may be that it creates exclusively.
        self.exclusive_bytes_max: Final[dict[str, int]] = {}

    def learn_ranges(self, status: int) -> None:
        """Take note of the status of an answer to a Range; once it was another than 206 it stays so."""
        if self.answers_206 is not False:
            self.answers_206 = status == 206


_endpoints: dict[str, Endpoint] = {}
_lock = threading.Lock()


def endpoint_of(name: str) -> Endpoint:
    """Return this process's one object for the server of that name."""
    with _lock:
        return _endpoints.setdefault(name, Endpoint())


def _forget() -> None:
    global _endpoints, _lock
    _endpoints, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget)
