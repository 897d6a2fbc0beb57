"""Four processes at once read, load, free and evict one prefix that changes, and are told no wrong byte."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from forebay.clock import NS_PER_S
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound, Stale, StoreBusy
from tests.property._cache_model import Answer, Sight
from tests.property._cache_process import CacheProcess, Place
from tests.property._cache_source import Source

BLOCK: Final = 64 * KIB
PROCESSES: Final = 4
PREFIX: Final = "p"
PATHS: Final = [f"{PREFIX}/{name}" for name in ("a", "b", "sub/c", "sub/d")]
# Read for no other reason than that what lies below the prefix is evicted for it: twice the tier.
FILLERS: Final = [f"filler/{number}" for number in range(4)]
FILLER_BYTES: Final = 4 * MIB
TIER_BYTES: Final = 8 * MIB
RECLAIMED_S_MAX: Final = 120.0
# Who frees waits for so long where nobody gets anything written, and raises then.
BUSY_S: Final = 1

paths = st.sampled_from(PATHS)
lengths = st.sampled_from([1, BLOCK, 3 * BLOCK + 7, 20 * BLOCK + 5])
readings = st.tuples(st.just("read"), paths, st.just(0), st.none())
parts = st.tuples(
    st.just("readinto"), paths, st.sampled_from([0, BLOCK - 1, 19 * BLOCK]), st.sampled_from([7, BLOCK])
)
loads = st.tuples(st.just("load"), st.sampled_from([PREFIX, f"{PREFIX}/sub", *PATHS]))
frees = st.tuples(
    st.just("free"), st.sampled_from([PREFIX, f"{PREFIX}/sub", *PATHS]), st.booleans(), st.booleans()
)
evictions = st.tuples(st.just("read"), st.sampled_from(FILLERS), st.just(0), st.none())
calls = st.one_of(readings, parts, loads, frees, evictions)
# What each process does, one call after another, and what the source changes to meanwhile.
rounds = st.tuples(
    st.lists(st.lists(calls, min_size=1, max_size=6), min_size=PROCESSES, max_size=PROCESSES),
    st.lists(st.tuples(paths, st.none() | lengths), max_size=3),
)


@given(
    retention=st.sampled_from(["s3fifo", "lru", "epoch"]),
    objects=st.lists(st.tuples(paths, lengths), min_size=1, max_size=4, unique_by=lambda each: each[0]),
    all_rounds=st.lists(rounds, min_size=1, max_size=4),
)
@settings(
    max_examples=20,
    # Four processes side by side never do the same twice: there is nothing to shrink by.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
def test_four_processes_share_one_prefix(
    retention: str, objects: list[tuple[str, int]], all_rounds: list[Any]
) -> None:
    with _placed() as (place, source):
        for path, length in [*objects, *((filler, FILLER_BYTES) for filler in FILLERS)]:
            source.put(path, length)
        processes = [CacheProcess(place) for _ in range(PROCESSES)]
        try:
            processes[0].call("attach", "shared", "shared://shared", 0.0, 0.0, retention)
            for of_processes, meanwhile in all_rounds:
                _judge_round(processes, source, of_processes, meanwhile)
            _judge_end(processes, source)
        finally:
            for process in processes:
                process.kill()


@contextmanager
def _placed() -> Iterator[tuple[Place, Source]]:
    memory = Path(tempfile.mkdtemp(prefix="forebay-four-", dir="/dev/shm"))
    disk = Path(tempfile.mkdtemp(prefix="forebay-four-"))
    try:
        (disk / "source").mkdir()
        place = Place(
            path=str(disk / "cache"),
            tiers=(Tier(str(memory / "MEM"), TIER_BYTES, "MEM"),),
            options={"block_bytes": BLOCK, "fetch_threads": 4},
            source=disk / "source",
            is_manual=False,
        )
        yield place, Source(disk / "source", is_manual=False)
    finally:
        shutil.rmtree(memory)
        shutil.rmtree(disk)


def _judge_round(
    processes: list[CacheProcess],
    source: Source,
    of_processes: list[list[tuple[Any, ...]]],
    meanwhile: list[tuple[str, int | None]],
) -> None:
    """Let all go at once, then hold each answer to what was there while its round lasted."""
    began_ns = source.clock.boot_ns()
    for process, theirs in zip(processes, of_processes, strict=True):
        process.post("each", [(name, (f"shared/{path}", *rest)) for name, path, *rest in theirs])
    for change in meanwhile:
        source.put(*change)
    results = [process.answer() for process in processes]
    state = source.look()
    has_waited = source.clock.boot_ns() - began_ns >= BUSY_S * NS_PER_S
    for theirs, found in zip(of_processes, results, strict=True):
        for call, (value, error) in zip(theirs, found, strict=True):
            if call[0] == "free" and has_waited and isinstance(error, StoreBusy):
                continue  # another got no processor for so long while it wrote metadata
            _judge(call, Answer(value, error, began_ns, state))


def _judge(call: tuple[Any, ...], answer: Answer) -> None:
    # max_age is 0: nothing older than the call is shown, and the call began with the round at the earliest.
    sight = Sight("shared", 0.0)
    name, path = call[:2]
    event(f"{name}: {type(answer.error).__name__}")
    if name == "free":
        assert answer.error is None, answer.error
    elif name == "load":
        if answer.error is None:
            assert answer.value[0] in ("done", "incomplete", "failed"), answer.value
        else:
            assert isinstance(answer.error, NotFound), answer.error
    elif answer.error is not None:
        assert isinstance(answer.error, NotFound | Stale), answer.error
        sight.judge_error(answer, [path])
    else:
        offset, length = call[2:]
        sight.judge_bytes(answer, path, answer.value, offset, length)


def _judge_end(processes: list[CacheProcess], source: Source) -> None:
    """All is still: everything reads right, the account is right, and what is freed is gone."""
    state = source.look()
    for path in (path for path, versions in state.history.items() if versions[-1].length is not None):
        answer = Answer(
            processes[1].call("read", f"shared/{path}", 0, None), None, source.clock.boot_ns(), state
        )
        Sight("shared", 0.0).judge_bytes(answer, path, answer.value, 0, None)
    report = processes[2].call("check")
    assert report.ok, report
    processes[3].call("free", "shared", True, True)
    # Versions that the last reads found to be no more are reclaimed in the background.
    gives_up_at = time.monotonic() + RECLAIMED_S_MAX
    while (left := processes[0].call("cached_bytes")) != 0:
        assert time.monotonic() < gives_up_at, left
        time.sleep(0.001)
    while processes:
        processes.pop().close()
