"""``forebay`` whose members take nobody for gone who stands still, for tests in which nobody dies.

On a crowded machine a process may get no processor for longer than a member waits for another, which then
costs a request more.
"""

from __future__ import annotations

from functools import partial

from forebay.cli import main
from forebay.peer import former, server
from forebay.peer.membership import Rules

SILENCE_S = 60.0
MISSES = 60

if __name__ == "__main__":
    server.ServeOptions = partial(server.ServeOptions, rules=Rules(misses=MISSES))  # type: ignore[misc,assignment]
    former._TIMEOUT_S = SILENCE_S  # type: ignore[misc]
    raise SystemExit(main())
