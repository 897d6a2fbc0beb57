"""``forebay`` whose members probe and look names up often, and soon give up a silent one, for tests."""

from __future__ import annotations

from functools import partial

from forebay.cli import main
from forebay.peer import prober, server
from forebay.peer.membership import Rules

GRACE_S = 2.0
PROBE_EVERY_S = 0.3
LOOK_UP_EVERY_S = 0.5

if __name__ == "__main__":
    rules = Rules(probe_interval_s=PROBE_EVERY_S, grace_s=GRACE_S)
    server.ServeOptions = partial(server.ServeOptions, rules=rules)  # type: ignore[misc,assignment]
    prober.LOOK_UP_EVERY_S = LOOK_UP_EVERY_S  # type: ignore[misc]
    raise SystemExit(main())
