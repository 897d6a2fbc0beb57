"""The gateway's limits, each of which is kept whatever clients do."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.config import KIB


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """How much at a time, and for how long.

    connections: more are closed as they come. head_bytes, head_s: how long the head of a request may be, and
    how long it may take. stall_s: how long neither side of a body may stand still. idle_s: how long a
    connection is kept without a request. threads: what waits for under storages and disks; more wait in turn.
    """

    connections: int = 1_024
    head_bytes: int = 64 * KIB
    head_s: float = 10.0
    stall_s: float = 60.0
    idle_s: int = 30
    threads: int = 64
