"""``forebay`` whose members give up a silent one after a moment, so that a test need not wait for longer."""

from __future__ import annotations

from functools import partial

from forebay.cli import main
from forebay.peer import server
from forebay.peer.membership import Rules

GRACE_S = 2.0

if __name__ == "__main__":
    server.ServeOptions = partial(server.ServeOptions, rules=Rules(grace_s=GRACE_S))  # type: ignore[misc,assignment]
    raise SystemExit(main())
