"""``forebay`` whose members give up a silent one, and look names up, after a moment, for tests."""

from __future__ import annotations

from functools import partial

from forebay.cli import main
from forebay.peer import prober, server
from forebay.peer.membership import Rules

GRACE_S = 2.0
LOOK_UP_EVERY_S = 0.5

if __name__ == "__main__":
    server.ServeOptions = partial(server.ServeOptions, rules=Rules(grace_s=GRACE_S))  # type: ignore[misc,assignment]
    prober.LOOK_UP_EVERY_S = LOOK_UP_EVERY_S  # type: ignore[misc]
    raise SystemExit(main())
