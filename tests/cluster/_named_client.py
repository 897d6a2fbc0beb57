"""A client whose only seed is a name: for each line of its input it reads all and says whom it knows.

It asks for views often, so that what changes is known soon.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from forebay.peer import refresh
from tests.cluster._site import SILENCE_S, Client, read_all

VIEW_EVERY_S = 0.3

if __name__ == "__main__":
    folder, tier, seed, endpoint_url = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    refresh.VIEW_INTERVAL_S = VIEW_EVERY_S  # type: ignore[misc]
    client = Client(Path(folder), Path(tier), [seed], endpoint_url, {"peer_timeout_s": SILENCE_S})
    group = client.group()
    with client.open(group) as cache:
        for _ in sys.stdin:
            read_all(cache)
            ring = group.ring
            print(json.dumps([] if ring is None else [each.id for each in ring.members]), flush=True)
