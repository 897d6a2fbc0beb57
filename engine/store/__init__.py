"""The block store: one crash-safe store on a host that many processes share without a daemon."""

from __future__ import annotations

from forebay.config import Tier, check_platform

check_platform()

from forebay.store._copies import copies  # noqa: E402
from forebay.store._store import BlockStore, Claim, FileReservation, Reservation, View  # noqa: E402
from forebay.store.report import CheckReport  # noqa: E402

__all__ = [
    "BlockStore",
    "CheckReport",
    "Claim",
    "FileReservation",
    "Reservation",
    "Tier",
    "View",
    "copies",
]
