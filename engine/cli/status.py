"""``status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from forebay.cache import Cache
from forebay.cli.mount_rates import MOUNT_HEADINGS, mount_rows
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import columns, echo_json, printable, share_text, size_text
from forebay.fuse.records import live_mounts
from forebay.metrics import render_prometheus
from forebay.peer.record import serving_status

_MEDIA: Final = ("mem", "ssd", "hdd")


@click.command()
@common_options
@click.option("--prometheus", is_flag=True, help="Print Prometheus's text format.")
@pass_session
def status(session: Session, prometheus: bool) -> None:
    """Show tiers, hits and misses, what was asked of under storages, and limits, for all of this host."""
    if prometheus and session.as_json:
        raise click.UsageError("--json and --prometheus exclude each other")
    with session.open_cache() as cache:
        found = status_of(cache)
    if session.as_json:
        echo_json(found)
    elif prometheus:
        click.echo(render_prometheus({**found, "mount_operations": list(_by_operation(found))}), nl=False)
    else:
        for line in status_lines(found):
            click.echo(line)


def status_of(cache: Cache) -> dict[str, Any]:
    """Return the cache's status with its mounts, and the group that it is served to."""
    return {**cache.status(), "mounts": live_mounts(cache.path), "group": serving_status(cache.path)}


def _by_operation(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what each mount was asked for, an operation at a time."""
    for record in status["mounts"]:
        labels = {name: record[name] for name in ("mountpoint", "dataset")}
        for operation, figures in record["operations"].items():
            yield {**figures, **labels, "operation": operation}


def hits_by_medium(counters: Mapping[str, int], what: str = "hits") -> dict[str, int]:
    """Return the hits, or with what="hit_bytes" their bytes, by medium."""
    return {medium.upper(): counters[f"{what}_{medium}"] for medium in _MEDIA}


def misses_by_cause(counters: Mapping[str, int]) -> dict[str, int]:
    """Return the misses by cause."""
    return {
        name.removeprefix("misses_"): count for name, count in counters.items() if name.startswith("misses_")
    }


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield the status as people read it."""
    counters, index = status["counters"], status["index"]
    rebuilding = ", the index is being rebuilt" if index["rebuilding"] else ""
    yield f"cache      {printable(status['path'])}"
    yield f"live file  {printable(index['live_path'])}"
    yield f"cached     {status['blocks']} blocks, {size_text(status['committed_bytes'])}{rebuilding}"
    yield f"hit ratio  {_ratio_text(counters)}"
    yield f"hits       {_parts_text(hits_by_medium(counters))}"
    yield f"misses     {_parts_text(misses_by_cause(counters))}"
    if counters["peer_requests"]:
        yield f"peers      {_peers_text(counters)}"
    yield f"source     {_source_text(counters)}"
    if (group := status["group"]) is not None:
        yield f"group      {_group_text(group)}"
    tables = (
        (
            ("tier", "medium", "cached", "used", "quota", "use", "held", "pinned", "state"),
            map(_tier_row, status["tiers"]),
        ),
        (("limit", "used", "most", "use"), _limit_rows(status)),
        (
            ("dataset", "cached", "quota", "use", "pinned", "retention", "max age", "uri"),
            _dataset_rows(status),
        ),
        (
            (
                "account",
                "A",
                "B",
                "deletes",
                "read",
                "served",
                "written",
                "saved requests",
                "saved",
                "cost",
                "saved cost",
            ),
            _account_rows(status["accounts"]),
        ),
        (("look-ups", "hits", "misses"), _lookup_rows(status["accounts"])),
        (MOUNT_HEADINGS, mount_rows(status["mounts"])),
        (("holder", "pid", "leases", "held"), _holder_rows(status["holders"])),
    )
    for headings, rows in tables:
        if listed := list(rows):
            yield ""
            yield from columns(headings, listed)


def _ratio_text(counters: Mapping[str, int]) -> str:
    hits, misses = sum(hits_by_medium(counters).values()), sum(misses_by_cause(counters).values())
    if not hits + misses:
        return "none yet"
    served = size_text(sum(hits_by_medium(counters, "hit_bytes").values()))
    return f"{share_text(hits, hits + misses)} of {hits + misses} look-ups, {served} served from tiers"


def _parts_text(parts: Mapping[str, int]) -> str:
    """Return a sum and what it is made of."""
    listed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in parts.items() if count)
    return f"{sum(parts.values())} ({listed})" if listed else "0"


def _peers_text(counters: Mapping[str, int]) -> str:
    text = f"{counters['peer_requests']} requests, {size_text(counters['peer_bytes'])}"
    return f"{text}, {counters['peer_down']} blocks that none had" if counters["peer_down"] else text


def _group_text(group: Mapping[str, Any]) -> str:
    """Return who is in the group that this cache is served to, and how its copies are."""
    up = sum(member["state"] == "up" for member in group["members"])
    text = f"{printable(group['group'])}, {up} of {len(group['members'])} members up"
    copies = group["replicas"]
    if copies["blocks_checked"] or copies["blocks_pushed"]:
        text += f", {copies['blocks_pushed']} copies pushed, {copies['blocks_missing']} were missing"
    return text


def _source_text(counters: Mapping[str, int]) -> str:
    text = f"{counters['source_requests']} requests, {size_text(counters['source_bytes'])}"
    for name, words in (("source_errors", "failed"), ("source_throttled", "throttled")):
        if counters[name]:
            text += f", {counters[name]} {words}"
    return text


def _tier_row(tier: Mapping[str, Any]) -> tuple[str, ...]:
    state = "ok"
    if tier["failed"]:
        state = f"failed: {tier['cause']}"
    elif tier["effective_bytes"] < tier["quota_bytes"]:
        state = f"shrunk to {size_text(tier['effective_bytes'])} for want of room"
    return (
        tier["path"],
        tier["medium"],
        size_text(tier["committed_bytes"]),
        size_text(tier["used_bytes"]),
        size_text(tier["quota_bytes"]),
        share_text(tier["used_bytes"], tier["quota_bytes"]),
        size_text(tier["held_bytes"]),
        size_text(tier["pinned_bytes"]),
        state,
    )


def _limit_rows(status: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the limits beside the tiers'; those marked so are of this process, as of each."""
    rows, index, maps = status["rows"], status["index"], status["maps"]
    fetch, recent = status["fetch"], status["recent"]
    held_bytes = max((holder["held_bytes"] for holder in status["holders"]), default=0)
    yield _limit_row("processes", rows["used"], rows["max"])
    yield _limit_row("index", index["bytes"], index["bytes_max"], size_text)
    yield _limit_row("held by one process", held_bytes, status["max_held_bytes"], size_text)
    yield _limit_row("this: segments mapped", maps["used"], maps["max"])
    yield _limit_row("this: requests in flight", fetch["in_flight"], fetch["in_flight_max"])
    yield _limit_row("this: fetch memory", fetch["memory_bytes"], fetch["memory_bytes_max"], size_text)
    yield _limit_row("this: look-ups kept", recent["bytes"], recent["bytes_max"], size_text)


def _limit_row(name: str, used: int, most: int, text: Any = str) -> tuple[str, ...]:
    return name, text(used), text(most), share_text(used, most)


def _dataset_rows(status: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for dataset in status["attached"]:
        # Of which nothing was ever read or cached the store knows nothing.
        held = status["datasets"].get(dataset["id"], {"committed_bytes": 0, "pinned_bytes": 0})
        quota_bytes = dataset["quota_bytes"]
        yield (
            dataset["name"],
            size_text(held["committed_bytes"]),
            "none" if quota_bytes is None else size_text(quota_bytes),
            "" if quota_bytes is None else share_text(held["committed_bytes"], quota_bytes),
            size_text(held["pinned_bytes"]),
            dataset["retention"],
            "immutable" if dataset["max_age"] is None else f"{dataset['max_age']:g} s",
            dataset["uri"],
        )


def _account_rows(accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name, account in accounts.items():
        source_bytes = account["bytes"]["source"]
        yield (
            name,
            str(account["class_a"]),
            str(account["class_b"]),
            str(account["requests"]["deletes"]),
            size_text(source_bytes),
            size_text(sum(account["bytes"].values()) - source_bytes),
            size_text(account["written_bytes"]),
            str(account["saved_requests"]),
            _signed_size_text(account["saved_bytes"]),
            _money_text(account["cost"], account["currency"]),
            _money_text(account["saved_cost"], account["currency"]),
        )


def _lookup_rows(accounts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name, account in accounts.items():
        yield name, str(account["hits"]), _parts_text(account["misses"])


def _signed_size_text(size_bytes: int) -> str:
    return f"-{size_text(-size_bytes)}" if size_bytes < 0 else size_text(size_bytes)


def _money_text(amount: float | None, currency: str) -> str:
    return "" if amount is None else f"{amount:.4f} {currency}".rstrip()


def _holder_rows(holders: Any) -> Iterator[tuple[str, ...]]:
    """Yield the processes that hold anything."""
    for holder in holders:
        if holder["leases"] or holder["held_bytes"]:
            yield (
                holder["name"],
                str(holder["pid"]),
                str(holder["leases"]),
                size_text(holder["held_bytes"]),
            )
