"""watch_schedules: what watching 1,000 schedules costs while none is due, and what claiming a run costs.

The rival of a run is the least that makes it durable: two bare commits of its rows, on the same disk.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import forebay
from forebay.cache.loads.jobs import JobRecord, LoadRequest
from forebay.cache.schedules.records import LastRun, ScheduleRecord, ScheduleRecords
from forebay.cache.schedules.watch import Watcher
from forebay.meta import Catalog
from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave, within_limit
from perf.places import disk_folder, memory_folder

ROOM_BYTES = 1 << 27
LOOKS_PER_S = 2
CORE_SHARE = 0.001
RUN_TARGET = 2.0


def run(quick: bool) -> Outcome:
    """Look at schedules that wait, and run them, round after round."""
    load = workload.load("watch", quick)
    with memory_folder(ROOM_BYTES) as memory, disk_folder() as disk:
        tiers = [forebay.Tier(str(memory / "tier"), "64MiB", "MEM")]
        with forebay.open(disk / "cache", tiers=tiers) as cache:
            cache.attach("d", f"file://{disk}")
            one = cache.schedule("d", cron="0 3 * * *", timezone="UTC")
            runtime = cache._runtime()
            records, catalog = runtime.schedules.records, runtime.metadata.catalog
            (record,) = records.all()
            with catalog.changing() as rows:
                for number in range(load["schedule_count"] - 1):
                    other = replace(record, id=f"{one.id}-{number}", created=record.created + number)
                    rows.put("schedule", other.id, other.to_json())
            watcher = cache.watcher()
            contenders = [
                Contender("look", partial(_look_s, watcher, load["look_count"])),
                Contender("run", partial(_run_s, records, catalog, one.id, load["run_count"])),
                Contender("two commits", partial(_commits_s, catalog, load["run_count"])),
            ]
            samples = interleave(contenders, load["rounds"])
    shares = [seconds * LOOKS_PER_S for seconds in samples["look"]]
    bars = [
        within_limit("watching 1,000 schedules, of a core / 0.1 %", shares, CORE_SHARE),
        compare("claim and end of a run / two commits", samples, "run", "two commits", RUN_TARGET, "at most"),
    ]
    return Outcome("s", samples, bars, load)


CASE = Case(
    "watch",
    "watching 1,000 schedules; claiming a run and noting its end",
    "a look at one number; two commits on the disk",
    run,
)


def _look_s(watcher: Watcher, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        if watcher.look():
            raise RuntimeError("a schedule was due that ought to wait")
    return (time.perf_counter() - started) / count


def _run_s(records: ScheduleRecords, catalog: Catalog, schedule_id: str, count: int) -> float:
    """Claim runs of a schedule and end them, as a watcher does with what it has read."""
    taken = 0.0
    for number in range(count):
        record = ScheduleRecord.from_json(catalog.get_row("schedule", schedule_id) or {})
        now = record.planned + 1
        job = JobRecord(f"run-{number}", record.request, 1, now)
        started = time.perf_counter()
        is_ours = records.claim(record, job, now) and records.note_end(
            replace(record, job=job.id), LastRun(job.id, "done", "", now)
        )
        taken += time.perf_counter() - started
        if not is_ours:
            raise RuntimeError("a run that nobody else wants was not claimed")
    return taken / count


def _commits_s(catalog: Catalog, count: int) -> float:
    """Write such rows, a schedule and its job, and the schedule again, without looking at any."""
    record = ScheduleRecord("bare", LoadRequest("d"), 0.0, over="it is no schedule")
    row, job = record.to_json(), JobRecord("bare", record.request, 1, 0.0).to_json()
    started = time.perf_counter()
    for _ in range(count):
        with catalog.changing() as rows:
            rows.put("schedule", record.id, row)
            rows.put("job", "bare", job)
        catalog.put_row("schedule", record.id, row)
    return (time.perf_counter() - started) / count
