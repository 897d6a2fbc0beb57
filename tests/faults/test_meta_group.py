"""Writes that threads make together, under kills, stops and interrupts: what was acknowledged is there."""

from __future__ import annotations

import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from forebay.meta import Entry, Metadata
from tests.faults._child import Child, wait_until

THREADS: Final = 6
STRIKES: Final = 300
ROUNDS_MAX: Final = 20_000
# About as long as a write takes that has to wait for another thread's.
DELAY_S_MAX: Final = 500e-6


def entry(path: str) -> Entry:
    return Entry(path, 7, 0, "v", False, 1)


def put_together(link: Connection, folder: Path, name: str) -> None:
    """Body: put in some threads, telling of each entry that is kept, until killed."""
    told = threading.Lock()
    with Metadata(folder) as metadata, ThreadPoolExecutor(THREADS) as pool:

        def work(thread: int) -> None:
            number = 0
            while True:
                path = f"{name}/{thread}-{number}"
                # Not kept where another process has had no processor for a second, in the midst of its own.
                if metadata.entries.put(1, [entry(path)]):
                    with told:
                        link.send(path)
                    number += 1

        for future in [pool.submit(work, thread) for thread in range(THREADS)]:
            future.result()


def test_what_threads_wrote_together_is_there_after_a_kill(tmp_path: Path) -> None:
    chance = random.Random(3)
    with Metadata(tmp_path) as metadata, Child(put_together, tmp_path, "survivor") as survivor:
        for number in range(8):
            with Child(put_together, tmp_path, f"victim-{number}") as victim:
                told = [victim.receive() for _ in range(chance.randrange(1, 60))]
                victim.kill()
                assert victim.exit_code() == -signal.SIGKILL
                while victim.link.poll():
                    with suppress(EOFError):
                        told.append(victim.link.recv())
                        continue
                    break
            assert [path for path in told if metadata.entries.get(1, path) is None] == []
            told = [survivor.receive() for _ in range(20)]
            assert [path for path in told if metadata.entries.get(1, path) is None] == []


def halt_in_turn(link: Connection, folder: Path) -> None:
    """Body: stay in a writing transaction until told to go on."""
    with Metadata(folder) as metadata, metadata.entries._environment.writing():
        link.send("writing")
        link.recv()


def test_a_stopped_writer_holds_threads_up_once_and_reads_go_on(tmp_path: Path) -> None:
    with (
        Metadata(tmp_path) as metadata,
        ThreadPoolExecutor(THREADS) as pool,
        Child(halt_in_turn, tmp_path) as writer,
    ):
        entries = metadata.entries
        assert writer.receive() == "writing"
        writer.stop()
        futures = [pool.submit(entries.put, 1, [entry(str(number))]) for number in range(THREADS)]
        while not all(future.done() for future in futures):
            assert entries.get(1, "0") is None
        assert not any(future.result() for future in futures)
        assert not entries.put(1, [entry("hasty")])
        writer.resume()
        writer.send("go on")
        writer.result()
        assert all(pool.map(lambda number: bool(entries.put(1, [entry(str(number))])), range(THREADS)))
        assert entries.get(1, "0") == entry("0")


def put_and_be_struck(link: Connection, folder: Path) -> None:
    """Body: interrupt the main thread's writes at random moments, while others write; then write and fork."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    delays = random.Random(5)
    is_over = threading.Event()
    counts = [0] * 2
    struck = 0
    with Metadata(folder) as metadata:
        entries = metadata.entries

        def work(thread: int) -> None:
            while not is_over.is_set():
                counts[thread] += bool(entries.put(1, [entry(f"{thread}/{counts[thread]}")]))

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(len(counts))]
        for thread in threads:
            thread.start()
        for number in range(ROUNDS_MAX):
            if struck == STRIKES:
                break
            try:
                signal.setitimer(signal.ITIMER_REAL, delays.uniform(1e-6, DELAY_S_MAX))
                entries.put(1, [entry(f"main/{number}")])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0)
        reached = list(counts)
        wait_until(
            lambda: all(now > then + 3 for now, then in zip(counts, reached, strict=True)), "the others"
        )
        is_over.set()
        for thread in threads:
            thread.join()
        assert entries.put(1, [entry("last")])
        link.send((struck, entries._group._leader, len(entries._group._brought)))
        missing = [
            f"{thread}/{number}"
            for thread, count in enumerate(counts)
            for number in range(count)
            if entries.get(1, f"{thread}/{number}") is None
        ]
        link.send(missing)


def test_an_interrupt_at_any_moment_costs_other_threads_nothing(tmp_path: Path) -> None:
    with Child(put_and_be_struck, tmp_path) as child:
        assert child.receive() == (STRIKES, None, 0)
        assert child.receive() == []
        child.result()
