"""Single flight across processes: one leader at a time, whatever happens to it."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.store import BlockStore
from tests.faults._child import Child, run, wait_until
from tests.faults._place import Place
from tests.faults._world import Block

PROCESSES: Final = 16
WANTED: Final = Block(1, 50_000)
STALL_S: Final = 0.6
# A dead fetcher is looked for every 100 ms; this is for a busy machine, and less than any time-out here.
TAKEOVER_S: Final = 20.0


@pytest.fixture
def place(memory_path: Path) -> Place:
    """A store that is there already, so that no opener waits for its making."""
    place = Place.under(memory_path)
    run(lambda link: place.open().close())
    return place


def right(store: BlockStore, block: Block) -> bool:
    """Tell whether a block is there; it must be right."""
    view = store.get(block.key)
    if view is None:
        return False
    with view:
        assert view == block.data
    return True


def fly(link: Connection, place: Place) -> int:
    """Body: read the wanted block through, saying what it is; return how often it was fetched here."""
    fetched = 0
    with place.open(stall_timeout_s=60.0) as store:
        assert link.recv() == "claim"
        while not right(store, WANTED):
            claim = store.claim(WANTED.key)
            link.send("leader" if claim.leader else "follower")
            if claim.leader:
                assert link.recv() == "fetch"
                fetched += not right(store, WANTED)
                assert store.put(WANTED.key, WANTED.data)
                claim.done()
            else:
                assert claim.wait(60)
                assert not claim.stalled
    return fetched


def start_all(stack: ExitStack, place: Place, count: int = PROCESSES) -> list[Child]:
    """Start processes that miss the block, and let each claim it."""
    processes = [stack.enter_context(Child(fly, place)) for _ in range(count)]
    for process in processes:
        process.send("claim")
    return processes


def test_of_16_processes_that_miss_a_block_one_fetches_it(place: Place) -> None:
    with ExitStack() as stack:
        processes = start_all(stack, place)
        said = [process.receive() for process in processes]
        assert sorted(said) == ["follower"] * (PROCESSES - 1) + ["leader"]
        processes[said.index("leader")].send("fetch")
        assert sum(process.result() for process in processes) == 1


def test_a_killed_leader_is_followed_by_one_other(place: Place) -> None:
    with ExitStack() as stack:
        processes = start_all(stack, place, 6)
        for left in (5, 4, 3):
            said = [process.receive() for process in processes]
            assert sorted(said) == ["follower"] * left + ["leader"]
            leader = processes.pop(said.index("leader"))
            leader.kill()
            assert leader.exit_code() == -signal.SIGKILL
        begun = time.monotonic()
        said = [process.receive() for process in processes]
        assert time.monotonic() - begun < TAKEOVER_S
        assert said.count("leader") == 1
        processes[said.index("leader")].send("fetch")
        assert sum(process.result() for process in processes) == 1
    with place.open() as store:
        assert store.status()["counters"]["flight_takeovers"] == 3


def lead(link: Connection, place: Place) -> None:
    """Body: lead until told to be done."""
    with place.open() as store:
        claim = store.claim(WANTED.key)
        assert claim.leader
        link.send("leads")
        assert link.recv() == "done"
        claim.done()


def lead_with_progress(link: Connection, place: Place) -> float:
    """Body: lead and make progress until told to be done; return the longest time without any."""
    with place.open() as store:
        claim = store.claim(WANTED.key)
        assert claim.leader
        last, longest = time.monotonic(), 0.0
        link.send("leads")
        while not link.poll(STALL_S / 8):
            begun = time.monotonic()
            claim.progress()
            longest = max(longest, time.monotonic() - last)
            last = begun
        longest = max(longest, time.monotonic() - last)
        claim.done()
        return longest


def test_a_stopped_leader_is_passed_by_and_ends_well(place: Place) -> None:
    with Child(lead, place) as leader:
        assert leader.receive() == "leads"
        leader.stop()

        def pass_by(link: Connection) -> float:
            with place.open(stall_timeout_s=STALL_S) as store:
                claim = store.claim(WANTED.key)
                assert not claim.leader
                begun = time.monotonic()
                assert claim.wait(30)
                assert claim.stalled
                return time.monotonic() - begun

        assert STALL_S <= run(pass_by) < STALL_S + TAKEOVER_S
        leader.resume()
        leader.send("done")
        leader.result()
    with place.open() as store:
        assert store.claim(WANTED.key).leader
        assert store.status()["counters"]["flight_stalled"] == 1


def test_a_leader_that_makes_progress_is_waited_for(place: Place) -> None:
    def follow(link: Connection) -> bool:
        with place.open(stall_timeout_s=STALL_S) as store:
            claim = store.claim(WANTED.key)
            link.send(claim.leader)
            assert claim.wait(30)
            return bool(claim.stalled)

    with Child(lead_with_progress, place) as leader:
        assert leader.receive() == "leads"
        with Child(follow) as follower:
            assert follower.receive() is False
            time.sleep(3 * STALL_S)
            was_left = follower.has_ended()
            leader.send("done")
            is_stalled, longest = follower.result(), leader.result()
    # A leader that had no processor for so long makes no progress either.
    assert (was_left, is_stalled) == (False, False) or longest >= STALL_S


def test_a_wait_ends_at_its_time_out_and_may_go_on(place: Place) -> None:
    def follow(link: Connection) -> None:
        with place.open(stall_timeout_s=60.0) as store:
            claim = store.claim(WANTED.key)
            begun = time.monotonic()
            assert not claim.wait(0.15)
            assert 0.1 <= time.monotonic() - begun < TAKEOVER_S
            link.send("waited")
            assert claim.wait(30)

    with Child(lead, place) as leader:
        assert leader.receive() == "leads"
        with Child(follow) as follower:
            assert follower.receive() == "waited"
            leader.send("done")
            follower.result()
            leader.result()


def test_sigint_inside_a_wait_is_answered(place: Place) -> None:
    def follow(link: Connection) -> str:
        with place.open(stall_timeout_s=60.0) as store:
            claim = store.claim(WANTED.key)
            # The signal may come as soon as the other side has read this.
            try:
                link.send("waits")
                claim.wait(60)
            except KeyboardInterrupt:
                link.send("interrupted")
            assert claim.wait(60), "the same claim can be waited for again"
            return "over"

    with Child(lead, place) as leader:
        assert leader.receive() == "leads"
        with Child(follow) as follower:
            assert follower.receive() == "waits"
            begun = time.monotonic()
            os.kill(follower.pid, signal.SIGINT)
            assert follower.receive() == "interrupted"
            assert time.monotonic() - begun < TAKEOVER_S
            leader.send("done")
            assert follower.result() == "over"
            leader.result()


def test_other_threads_run_while_one_waits(place: Place) -> None:
    def follow(link: Connection) -> None:
        with place.open(stall_timeout_s=60.0) as store:
            claim = store.claim(WANTED.key)
            begun = threading.Event()

            def turn() -> None:
                begun.wait()
                # Far longer than a thread keeps the interpreter from one that wants it to begin its wait.
                for _ in range(1_000_000):
                    pass
                link.send("turned")

            thread = threading.Thread(target=turn)
            thread.start()
            begun.set()
            assert claim.wait(60), "the flight ends after the other thread's turns"
            thread.join()

    with Child(lead, place) as leader:
        assert leader.receive() == "leads"
        with Child(follow) as follower:
            assert follower.receive() == "turned"
            leader.send("done")
            follower.result()
            leader.result()


def test_a_claim_that_is_dropped_is_over(place: Place) -> None:
    with place.open() as store:
        claim = store.claim(WANTED.key)
        assert claim.leader
        assert not store.claim(WANTED.key).leader, "of two threads of one process too"
        del claim
        assert store.claim(WANTED.key).leader


def test_a_forked_child_does_not_end_its_parents_flight(place: Place) -> None:
    def lead_and_fork(link: Connection) -> bool:
        with place.open() as store:
            claim = store.claim(WANTED.key)

            def drop(inner: Connection) -> bool:
                claim.progress()
                claim.done()
                return bool(store.claim(WANTED.key).leader)

            led_by_child = run(drop)
            claim.done()
            return led_by_child or not store.claim(WANTED.key).leader

    assert run(lead_and_fork) is False


class Fetching:
    """Who fetches what at the moment: a byte for each process and key in shared memory."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self._bytes = mmap.mmap(-1, keys * PROCESSES)
        self._counts = mmap.mmap(-1, keys * PROCESSES)

    def begin(self, process: int, key: int) -> list[int]:
        """Note that a process fetches; return the others that do."""
        self._bytes[key * PROCESSES + process] = 1
        self._counts[key * PROCESSES + process] += 1
        row = self._bytes[key * PROCESSES : (key + 1) * PROCESSES]
        return [other for other in range(PROCESSES) if row[other] and other != process]

    def end(self, process: int, key: int) -> None:
        """Note that it does no more."""
        self._bytes[key * PROCESSES + process] = 0

    def fetched(self, key: int) -> int:
        """Count how often a key was fetched, by all processes."""
        return sum(self._counts[key * PROCESSES : (key + 1) * PROCESSES])


def test_of_many_blocks_each_is_fetched_once(place: Place) -> None:
    blocks = [Block(100 + i, 4000) for i in range(150)]
    fetching = Fetching(len(blocks))

    def read_all(link: Connection, number: int) -> None:
        with place.open(stall_timeout_s=60.0) as store:
            link.send("open")
            link.recv()
            for key, block in enumerate(blocks):
                while not right(store, block):
                    claim = store.claim(block.key)
                    if not claim.leader:
                        claim.wait(30)
                        assert not claim.stalled
                    elif not store.contains(block.key):
                        assert fetching.begin(number, key) == []
                        assert store.put(block.key, block.data)
                        fetching.end(number, key)
                    claim.done()

    with ExitStack() as stack:
        processes = [stack.enter_context(Child(read_all, number)) for number in range(PROCESSES)]
        assert {process.receive() for process in processes} == {"open"}
        for process in processes:
            process.send("go")
        for process in processes:
            process.result()
    assert [fetching.fetched(key) for key in range(len(blocks))] == [1] * len(blocks)


def test_when_the_table_is_full_everybody_fetches_for_himself(place: Place) -> None:
    keys = [b"flight-%d" % i for i in range(8000)]
    with Child(lambda link: hold_all(link, place, keys)) as holder:
        assert holder.receive() == len(keys), "each claim leads, with a place in the table or without"

        def claim_all(link: Connection) -> int:
            with place.open() as store:
                claims = [store.claim(key) for key in keys]
                leaders = sum(claim.leader for claim in claims)
                for claim in claims:
                    claim.done()
                return leaders

        alone = run(claim_all)
        assert 8000 - 512 * 8 <= alone < 6000, "at most 8 keys in each of 512 buckets are shared"
        holder.kill()
        holder.exit_code()
        assert run(claim_all) == len(keys), "the dead process's places are taken over"


def hold_all(link: Connection, place: Place, keys: list[bytes]) -> None:
    """Body: claim every key and hold on."""
    with place.open() as store:
        claims = [store.claim(key) for key in keys]
        link.send(sum(claim.leader for claim in claims))
        link.recv()


def test_a_follower_wakes_when_its_leader_dies_silently(place: Place) -> None:
    def follow(link: Connection) -> bool:
        with place.open(stall_timeout_s=60.0) as store:
            claim = store.claim(WANTED.key)
            link.send(claim.leader)
            assert claim.wait(30)
            return bool(store.claim(WANTED.key).leader)

    with Child(lead, place) as leader:
        assert leader.receive() == "leads"
        with Child(follow) as follower:
            assert follower.receive() is False
            leader.kill()
            assert wait_until(follower.has_ended, "the follower notices") < TAKEOVER_S
            assert follower.result() is True
