"""The status as people read it."""

from __future__ import annotations

from typing import Any

from forebay.cli.status import status_lines
from forebay.config import GIB, MIB
from forebay.store.report import COUNTERS


def tier(path: str, **figures: Any) -> dict[str, Any]:
    zero = dict.fromkeys(("committed_bytes", "used_bytes", "held_bytes", "pinned_bytes"), 0)
    sizes = {"quota_bytes": GIB, "effective_bytes": GIB}
    return {"path": path, "medium": "SSD", **zero, **sizes, "failed": False, "cause": "", **figures}


def status(**parts: Any) -> dict[str, Any]:
    return {
        "path": "/cache",
        "blocks": 3,
        "committed_bytes": 12 * MIB,
        "counters": dict.fromkeys(COUNTERS, 0) | parts.pop("counters", {}),
        "tiers": [tier("/t")],
        "index": {"live_path": "/live", "bytes": MIB, "bytes_max": 4 * MIB, "rebuilding": False},
        "rows": {"used": 2, "max": 1024},
        "maps": {"used": 1, "max": 1024},
        "max_held_bytes": 64 * MIB,
        "fetch": {"in_flight": 1, "in_flight_max": 64, "memory_bytes": 0, "memory_bytes_max": 256 * MIB},
        "recent": {"entries": 5, "bytes": 3 * MIB, "bytes_max": 12 * MIB},
        "holders": [],
        "mounts": [],
        "group": None,
        "attached": [],
        "accounts": {},
        "datasets": {},
        **parts,
    }


def line_of(lines: list[str], begins: str) -> list[str]:
    """Return the cells of the only line that begins so."""
    (line,) = [line for line in lines if line.startswith(begins)]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_an_idle_cache() -> None:
    lines = list(status_lines(status()))
    assert not any(line.startswith("account") for line in lines)
    assert line_of(lines, "hit ratio") == ["hit ratio", "none yet"]
    assert line_of(lines, "misses") == ["misses", "0"]
    assert line_of(lines, "source") == ["source", "0 requests, 0 B"]
    assert line_of(lines, "index") == ["index", "1.0 MiB", "4.0 MiB", "25.0 %"]
    assert not any(line.startswith("peers") for line in lines)
    assert not any(line.startswith(("holder", "dataset")) for line in lines)


def test_hits_misses_and_the_source() -> None:
    counters = {
        "hits_mem": 90,
        "hits_ssd": 6,
        "hit_bytes_mem": 2 * MIB,
        "misses_cold": 3,
        "misses_not_admitted": 1,
        "source_requests": 4,
        "source_bytes": MIB,
        "source_throttled": 2,
    }
    lines = list(status_lines(status(counters=counters)))
    assert line_of(lines, "hit ratio")[1] == "96.0 % of 100 look-ups, 2.0 MiB served from tiers"
    assert line_of(lines, "hits")[1] == "96 (MEM 90, SSD 6)"
    assert line_of(lines, "misses")[1] == "4 (cold 3, not admitted 1)"
    assert line_of(lines, "source")[1] == "4 requests, 1.0 MiB, 2 throttled"


def test_peers_that_were_asked() -> None:
    counters = {"peer_requests": 5, "peer_bytes": MIB}
    (line,) = [each for each in status_lines(status(counters=counters)) if each.startswith("peers")]
    assert line == "peers      5 requests, 1.0 MiB"
    (line,) = [
        each
        for each in status_lines(status(counters=counters | {"peer_down": 2}))
        if each.startswith("peers")
    ]
    assert line == "peers      5 requests, 1.0 MiB, 2 blocks that none had"


def test_tiers_that_are_not_well() -> None:
    tiers = [
        tier("/ok", used_bytes=GIB // 4),
        tier("/small", effective_bytes=GIB // 2),
        tier("/bad\n", failed=True, cause="EIO"),
    ]
    lines = list(status_lines(status(tiers=tiers)))
    assert line_of(lines, "/ok")[3:6] == ["256.0 MiB", "1.0 GiB", "25.0 %"]
    assert line_of(lines, "/ok")[-1] == "ok"
    assert line_of(lines, "/small")[-1] == "shrunk to 512.0 MiB for want of room"
    assert line_of(lines, r"/bad\n")[-1] == "failed: EIO"


def test_holders_and_datasets() -> None:
    holders = [
        {"name": "idle", "pid": 1, "leases": 0, "held_bytes": 0},
        {"name": "reader", "pid": 2, "leases": 5, "held_bytes": 16 * MIB},
    ]
    settings = {"retention": "epoch", "max_age": None, "uri": "s3://b"}
    attached = [
        {"name": "d", "id": 1, "quota_bytes": None, **settings},
        {"name": "e", "id": 2, "quota_bytes": 4 * MIB, **settings},
    ]
    datasets = {2: {"committed_bytes": MIB, "pinned_bytes": 1024}}
    lines = list(status_lines(status(holders=holders, attached=attached, datasets=datasets)))
    assert line_of(lines, "reader") == ["reader", "2", "5", "16.0 MiB"]
    assert not any(line.startswith("idle") for line in lines)
    assert line_of(lines, "held by one process")[1:] == ["16.0 MiB", "64.0 MiB", "25.0 %"]
    assert line_of(lines, "d ") == ["d", "0 B", "none", "0 B", "epoch", "immutable", "s3://b"]
    assert line_of(lines, "e ") == [
        *("e", "1.0 MiB", "4.0 MiB", "25.0 %", "1.0 KiB", "epoch", "immutable", "s3://b")
    ]


def account(**figures: Any) -> dict[str, Any]:
    zero: dict[str, Any] = {"bytes": {"MEM": 0, "SSD": MIB, "HDD": 0, "peers": 0, "source": 2 * MIB}}
    zero |= {"class_a": 1, "class_b": 20, "requests": {"deletes": 0}, "currency": "", "cost": None}
    zero |= {"written_bytes": 3 * MIB, "hits": 7, "misses": {"cold": 0, "not_admitted": 0}}
    return {**zero, "saved_requests": 30, "saved_bytes": MIB, "saved_cost": None, **figures}


def test_accounts() -> None:
    spent = account(
        misses={"cold": 4, "not_admitted": 1}, saved_bytes=-MIB, cost=0.25, saved_cost=-0.125, currency="USD"
    )
    lines = list(status_lines(status(accounts={"d": account(), "e": spent})))
    begin, lookups = (lines.index(line) for line in lines if line.startswith(("account", "look-ups")))
    assert [" ".join(line.split()) for line in lines[lookups + 1 :]] == [
        "d 7 0",
        "e 7 5 (cold 4, not admitted 1)",
    ]
    lines = lines[begin:lookups]
    assert line_of(lines, "d ") == ["d", "1", "20", "0", "2.0 MiB", "1.0 MiB", "3.0 MiB", "30", "1.0 MiB"]
    assert line_of(lines, "e ")[-3:] == ["-1.0 MiB", "0.2500 USD", "-0.1250 USD"]
