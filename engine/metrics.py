"""A status as metrics: the one table of their names, and the Prometheus text made with it.

Names are stable: a rename is a change of the format. docs/metrics.md explains each. Nothing is collected
here; counting is the store's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a status: where it stands there, and its name, labels and help for Prometheus.

    source is the way through the status; a ``*`` in it stands for each of a list, whose labels item_labels
    name, or for each dataset. Metrics of one name differ in labels only; a counter's name gets ``_total``.
    """

    source: tuple[str, ...]
    name: str
    help: str
    kind: Kind = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)
    item_labels: tuple[str, ...] = ()


def _counter(source: str, name: str, help_text: str, **labels: str) -> Metric:
    way = ("datasets", "*", "counters", source)
    return Metric(way, f"forebay_{name}", help_text, "counter", labels, ("dataset",))


def _store_counter(source: str, name: str, help_text: str) -> Metric:
    return Metric(("counters", source), f"forebay_{name}", help_text, "counter")


def _dataset(source: str, name: str, help_text: str) -> Metric:
    return Metric(("datasets", "*", source), f"forebay_dataset_{name}", help_text, item_labels=("dataset",))


def _tier(source: str, name: str, help_text: str, **labels: str) -> Metric:
    return Metric(
        ("tiers", "*", source), f"forebay_tier_{name}", help_text, "gauge", labels, ("path", "medium")
    )


def _mount(source: str, name: str, help_text: str) -> Metric:
    labels = ("mountpoint", "dataset", "operation")
    return Metric(
        ("mount_operations", "*", source), f"forebay_mount_{name}", help_text, "counter", item_labels=labels
    )


def _copies(source: str, name: str, help_text: str, kind: Kind = "gauge") -> Metric:
    return Metric(("group", "replicas", source), f"forebay_copies_{name}", help_text, kind)


_HITS: Final = "Blocks served from a tier."
_HIT_BYTES: Final = "Bytes of blocks served from a tier."
_MISSES: Final = "Look-ups that found nothing to serve, by cause."
_WRITTEN: Final = "Bytes written into tiers: admitted, moved, demoted or promoted."
_SENT: Final = "Requests as they were sent to under storages, repeated ones too, by what they ask for."
_SEGMENTS: Final = "Segments of a tier, by state."

METRICS: Final[tuple[Metric, ...]] = (
    _counter("hits_mem", "hits", _HITS, medium="MEM"),
    _counter("hits_ssd", "hits", _HITS, medium="SSD"),
    _counter("hits_hdd", "hits", _HITS, medium="HDD"),
    _counter("hit_bytes_mem", "hit_bytes", _HIT_BYTES, medium="MEM"),
    _counter("hit_bytes_ssd", "hit_bytes", _HIT_BYTES, medium="SSD"),
    _counter("hit_bytes_hdd", "hit_bytes", _HIT_BYTES, medium="HDD"),
    _counter("misses_cold", "misses", _MISSES, cause="cold"),
    _counter("misses_evicted", "misses", _MISSES, cause="evicted"),
    _counter("misses_expired", "misses", _MISSES, cause="expired"),
    _counter("misses_checksum", "misses", _MISSES, cause="checksum"),
    _counter("misses_busy", "misses", _MISSES, cause="busy"),
    _counter("misses_io", "misses", _MISSES, cause="io"),
    _counter("admitted", "admitted_blocks", "Blocks admitted."),
    _counter("admitted_bytes", "admitted_bytes", "Bytes of blocks admitted."),
    _counter("not_admitted", "not_admitted_blocks", "Blocks served but not admitted."),
    _counter("not_admitted_bytes", "not_admitted_bytes", "Bytes of blocks served but not admitted."),
    _counter("written_bytes_mem", "written_bytes", _WRITTEN, medium="MEM"),
    _counter("written_bytes_ssd", "written_bytes", _WRITTEN, medium="SSD"),
    _counter("written_bytes_hdd", "written_bytes", _WRITTEN, medium="HDD"),
    _counter("evicted", "evicted_blocks", "Blocks evicted."),
    _counter("evicted_bytes", "evicted_bytes", "Bytes of blocks evicted."),
    _counter("expired", "expired_blocks", "Blocks whose TTL ended."),
    _counter("deleted", "deleted_blocks", "Blocks deleted."),
    _counter("moved", "moved_blocks", "Blocks moved within a level to empty a segment."),
    _counter("demoted", "demoted_blocks", "Blocks moved to a slower level."),
    _counter("promoted", "promoted_blocks", "Blocks moved to a faster level."),
    _counter("private_copies", "private_copies", "Views given as copies because a process held too much."),
    _store_counter("flight_waits", "flight_waits", "Readers that waited for another process's fetch."),
    _store_counter("flight_takeovers", "flight_takeovers", "Fetches taken over from a dead process."),
    _store_counter("flight_stalled", "flight_stalled", "Fetches passed by because they made no progress."),
    _store_counter("lock_takeovers", "lock_takeovers", "Locks taken over from a dead process."),
    _store_counter("page_repairs", "page_repairs", "Index pages repaired after a process died in them."),
    _store_counter("io_errors", "io_errors", "Errors of tiers in reading or writing."),
    _store_counter("rebuilt_segments", "rebuilt_segments", "Segments read to rebuild the index."),
    _store_counter("segments_retired", "segments_retired", "Segments emptied for another use."),
    _counter("misses_changed", "misses", _MISSES, cause="changed"),
    _counter("misses_not_admitted", "misses", _MISSES, cause="not_admitted"),
    _counter(
        "peer_down", "peer_down_blocks", "Blocks that no peer had in time, though one answers for them."
    ),
    _counter("source_requests", "source_requests", "Ranges asked of under storages."),
    _counter("source_bytes", "source_bytes", "Bytes read from under storages."),
    _counter("source_errors", "source_errors", "Requests to under storages that failed."),
    _counter("source_throttled", "source_throttled", "Requests that an under storage refused as too many."),
    _counter("peer_requests", "peer_requests", "Blocks, objects and directories asked of peers."),
    _counter("peer_bytes", "peer_bytes", "Bytes read from peers."),
    _counter("readahead_bytes", "readahead_bytes", "Bytes fetched ahead of a reader."),
    _counter("load_bytes", "load_bytes", "Bytes fetched by loads."),
    _counter("writes", "writes", "Objects and directories put, deleted, renamed or made."),
    _counter("write_bytes", "write_bytes", "Bytes of objects put."),
    _counter("write_errors", "write_errors", "Writes that failed."),
    _counter("source_gets", "source_sent_requests", _SENT, method="GET"),
    _counter("source_heads", "source_sent_requests", _SENT, method="HEAD"),
    _counter("source_lists", "source_sent_requests", _SENT, method="LIST"),
    _counter("source_puts", "source_sent_requests", _SENT, method="PUT"),
    _counter("source_deletes", "source_sent_requests", _SENT, method="DELETE"),
    _tier("quota_bytes", "quota_bytes", "What the tier may hold."),
    _tier(
        "effective_bytes", "effective_bytes", "What the tier may hold for now: less under memory pressure."
    ),
    _tier("used_bytes", "used_bytes", "Bytes of the tier in use, free room within segments included."),
    _tier("free_bytes", "free_bytes", "Bytes of segments ready for use."),
    _tier("held_bytes", "held_bytes", "Bytes evicted but still under a reader's view."),
    _tier("committed_bytes", "committed_bytes", "Bytes of cached blocks."),
    _tier("committed_blocks", "committed_blocks", "Cached blocks."),
    _tier("pinned_bytes", "pinned_bytes", "Bytes of pinned blocks."),
    _tier("failed", "failed", "1 while the tier is taken out for I/O errors."),
    _tier("segments_free", "segments", _SEGMENTS, state="free"),
    _tier("segments_open", "segments", _SEGMENTS, state="open"),
    _tier("segments_sealed", "segments", _SEGMENTS, state="sealed"),
    _tier("segments_held", "segments", _SEGMENTS, state="held"),
    _tier("segments_absent", "segments", _SEGMENTS, state="absent"),
    _tier("segments_unscanned", "segments", _SEGMENTS, state="unscanned"),
    _tier("segments_whole", "segments", _SEGMENTS, state="whole"),
    _dataset("committed_bytes", "committed_bytes", "Bytes of a dataset's cached blocks."),
    _dataset("blocks", "blocks", "A dataset's cached blocks."),
    _dataset("pinned_bytes", "pinned_bytes", "Bytes of a dataset's pinned blocks."),
    _dataset("quota_bytes", "quota_bytes", "What a dataset may have cached, if it has a quota."),
    _dataset("cost", "cost", "What under storages have charged for a dataset, by the price file."),
    _dataset("saved_cost", "saved_cost", "What they would have charged besides without the cache."),
    Metric(("blocks",), "forebay_blocks", "Cached blocks in all tiers."),
    Metric(("committed_bytes",), "forebay_committed_bytes", "Bytes of cached blocks in all tiers."),
    Metric(("index", "bytes"), "forebay_index_bytes", "Size of the index."),
    Metric(("index", "bytes_max"), "forebay_index_bytes_max", "Size to which the index may grow."),
    Metric(("index", "rebuilding"), "forebay_index_rebuilding", "1 while the index is being rebuilt."),
    Metric(("rows", "used"), "forebay_rows", "Processes that have the cache open."),
    Metric(("rows", "max"), "forebay_rows_max", "Processes that can have it open with leases of their own."),
    Metric(("maps", "used"), "forebay_maps", "Segments mapped by the process that answers."),
    Metric(("maps", "max"), "forebay_maps_max", "Segments that it maps at most."),
    Metric(("staging", "bytes"), "forebay_staging_bytes", "Bytes of files that are being written."),
    Metric(("staging", "bytes_max"), "forebay_staging_bytes_max", "Bytes of them that there may be."),
    Metric(("max_held_bytes",), "forebay_max_held_bytes", "Bytes that one process may hold by views."),
    Metric(("maintainer_alive",), "forebay_maintainer_alive", "1 while some process maintains the cache."),
    Metric(
        ("holders", "*", "leases"),
        "forebay_holder_leases",
        "Leases that a process holds.",
        item_labels=("pid", "name"),
    ),
    Metric(
        ("holders", "*", "held_bytes"),
        "forebay_holder_held_bytes",
        "Evicted bytes that a process's views hold.",
        item_labels=("pid", "name"),
    ),
    _mount("count", "operations", "Requests of the kernel that a mount has answered."),
    _mount("errors", "errors", "Requests of the kernel that a mount has answered with an error."),
    _mount("waited", "waited", "Requests of the kernel that had to wait for an under storage."),
    _copies("is_under_way", "pass_under_way", "1 while a member looks for copies that are missing."),
    _copies(
        "blocks_checked", "checked_blocks", "Blocks with copies that this pass, or the last, has looked at."
    ),
    _copies("blocks_missing", "missing_blocks", "Copies that it found missing."),
    _copies("last_pass_s", "last_pass_seconds", "How long the last pass took."),
    _copies("passes", "passes", "Complete passes of a member.", "counter"),
    _copies("blocks_pushed", "pushed_blocks", "Blocks pushed to other members.", "counter"),
    _copies("bytes_pushed", "pushed_bytes", "Bytes of blocks pushed to other members.", "counter"),
    _copies("blocks_refused", "refused_blocks", "Blocks that others had no room for.", "counter"),
    _copies("errors", "errors", "Calls for copies that were not answered; they are made again.", "counter"),
)


def samples(status: Mapping[str, Any]) -> Iterator[tuple[Metric, dict[str, str], float]]:
    """Yield each metric with its labels and value in the status of a store or a cache."""
    for metric in METRICS:
        first, *rest = metric.source
        if status.get(first) is None:
            # What only a cache has, or a member of a group.
            continue
        if first == "datasets":
            for number, dataset in status[first].items():
                labels = {"dataset": dataset.get("name") or f"#{number}", **metric.labels}
                value = dataset["counters"].get(rest[2]) if rest[1] == "counters" else dataset.get(rest[1])
                if value is not None:
                    yield metric, labels, float(value)
        elif rest and rest[0] == "*":
            for item in status[first]:
                item_labels = {name: str(item[name]) for name in metric.item_labels}
                yield metric, {**item_labels, **metric.labels}, float(item[rest[1]])
        else:
            value = status[first]
            for name in rest:
                value = value[name]
            yield metric, dict(metric.labels), float(value)


def render_prometheus(status: Mapping[str, Any]) -> str:
    """Return the status in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    makers = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for metric, labels, value in samples(status):
        if metric.name not in families:
            families[metric.name] = makers[metric.kind](metric.name, metric.help, labels=list(labels))
        families[metric.name].add_metric(list(labels.values()), value)

    class Collected(Collector):
        def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
            yield from families.values()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return generate_latest(registry).decode("utf-8")
