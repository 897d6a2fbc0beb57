"""The state machine: quotas and accounts of datasets that several processes read, load, write, free and pin.

Calls come one after another, so that all that is counted is known; a process that is killed in the middle of
one may have done any part of it, and from there on everything is exact again.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.config import KIB, MIB, Tier
from forebay.store.report import DATASET_COUNTERS
from tests.property._account_model import COUNTED, DatasetModel, is_at_or_below, length_of
from tests.property._cache_process import CacheProcess, Place
from tests.property._cache_source import Source, Version

BLOCK: Final = 64 * KIB
FETCH_THREADS: Final = 4
SETTLES_S_MAX: Final = 120.0
# "some" is cached when it is read, "one" when it is written too (see _Servant.attach).
NAMES: Final = ("one", "some")
INSIDE: Final = ("a", "b", "sub/c", "sub/d", "sub/e")

which_process = st.integers(0, 2)
names = st.sampled_from(NAMES)
insides = st.sampled_from(INSIDE)
several = st.lists(insides, min_size=1, unique=True)
places = st.sampled_from(["", "/sub", *(f"/{inside}" for inside in INSIDE)])
lengths = st.sampled_from([1, 1_000, 20_000, BLOCK - 1, BLOCK])
quotas = st.none() | st.sampled_from([0, 1_000, 50_000, 100_000, 200_000])


class AccountMachine(RuleBasedStateMachine):
    """Two datasets, each of a part of one storage that nobody else changes."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Path(tempfile.mkdtemp(prefix="forebay-accounts-", dir="/dev/shm"))
        self.disk = Path(tempfile.mkdtemp(prefix="forebay-accounts-"))
        (self.disk / "source").mkdir()
        self.source = Source(self.disk / "source", is_manual=False)
        self.processes: list[CacheProcess] = []
        self.datasets: dict[str, DatasetModel] = {}
        self.attachments = 0
        self.turn = 0

    @initialize(objects=st.dictionaries(st.tuples(names, insides), lengths, min_size=3))
    def begin(self, objects: dict[tuple[str, str], int]) -> None:
        for (name, inside), length in objects.items():
            self.source.put(f"{name}/{inside}", length)
        self.place = Place(
            path=str(self.disk / "cache"),
            tiers=(Tier(str(self.memory / "tier"), 64 * MIB, "MEM"),),
            options={"block_bytes": BLOCK, "fetch_threads": FETCH_THREADS},
            source=self.disk / "source",
            is_manual=False,
        )
        self.open_another()
        for name in NAMES:
            self.attach(0, name)

    def teardown(self) -> None:
        try:
            if self.processes:
                assert self.call(0, "check").ok
                while self.processes:
                    self.processes.pop().close()
        finally:
            for process in self.processes:
                process.kill()
            shutil.rmtree(self.memory)
            shutil.rmtree(self.disk)

    # ---- helpers

    def call(self, which: int, name: str, *arguments: Any) -> Any:
        return self.processes[which % len(self.processes)].call(name, *arguments)

    def attach(self, which: int, name: str) -> None:
        self.attachments += 1
        uri = f"shared://{name}-{self.attachments}"
        self.call(which, "attach", name, uri, None, 0.0, "epoch")
        self.datasets[name] = DatasetModel(name, uri, is_cached_when_written=name == "one")

    def objects(self, name: str, place: str = "") -> dict[str, Version]:
        """Return what the storage has of a dataset at and below a place, by path."""
        history = self.source.look().history
        newest = {path: versions[-1] for path, versions in history.items()}
        return {
            path: version
            for path, version in newest.items()
            if version.length is not None and is_at_or_below(path, f"{name}{place}")
        }

    def cached(self, which: int, name: str) -> dict[str, Version]:
        """Return what the cache says that it has of them, without counting as a reader."""
        found = {}
        for path, version in self.objects(name).items():
            cached_bytes = self.call(which, "usage", f"{name}/{path}").cached_bytes
            assert cached_bytes in (0, version.length), path
            if cached_bytes:
                found[path] = version
        return found

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        gives_up_at = time.monotonic() + SETTLES_S_MAX
        while not condition():
            assert time.monotonic() < gives_up_at, what
            time.sleep(0.001)

    def committed(self, which: int, name: str) -> int:
        status = self.call(which, "status")
        (record,) = (each for each in status["attached"] if each["name"] == name)
        return int(status["datasets"].get(record["id"], {"committed_bytes": 0})["committed_bytes"])

    # ---- reads and loads

    @rule(which=which_process, name=names, inside=insides, how=st.sampled_from(["read", "readinto"]))
    def read(self, which: int, name: str, inside: str, how: str) -> None:
        wanted = self.objects(name, f"/{inside}")
        for path in wanted:
            arguments = (0, None) if how == "read" else (0, 2 * BLOCK)
            self.call(which, how, f"{name}/{path}", *arguments)
        self.fetched(which, name, self.datasets[name].look_up(wanted))

    @rule(which=which_process, name=names, insides=several)
    def read_many(self, which: int, name: str, insides: list[str]) -> None:
        there = self.objects(name)
        wanted = {path: there[path] for inside in insides if (path := f"{name}/{inside}") in there}
        self.call(which, "read_many", [f"{name}/{path}" for path in wanted])
        self.fetched(which, name, self.datasets[name].look_up(wanted))

    def fetched(self, which: int, name: str, missing: Mapping[str, Version]) -> None:
        """Count what a reader fetched, each object once, and what became of it."""
        dataset = self.datasets[name]
        dataset.counted["source_bytes"] += sum(map(length_of, missing.values()))
        if len(missing) == 1 or dataset.has_room(missing.values()):
            for path, version in missing.items():
                dataset.offer(path, version)
        else:
            before = dataset.cached.keys()
            dataset.take_over(self.cached(which, name), missing)
            refused = [version for path, version in missing.items() if path not in dataset.cached]
            assert before <= dataset.cached.keys()
            dataset.counted["not_admitted"] += len(refused)
            dataset.counted["not_admitted_bytes"] += sum(map(length_of, refused))

    @rule(which=which_process, name=names, place=places)
    def load(self, which: int, name: str, place: str) -> None:
        dataset, wanted = self.datasets[name], self.objects(name, place)
        if not wanted:
            return
        missing = {path: version for path, version in wanted.items() if path not in dataset.cached}
        state, reason = self.call(which, "load", f"{name}/{name}{place}")
        if dataset.has_room(missing.values()):
            assert state == "done", reason
            for path, version in missing.items():
                dataset.offer(path, version)
            dataset.counted["source_bytes"] += sum(map(length_of, missing.values()))
            dataset.counted["load_bytes"] += sum(map(length_of, missing.values()))
        else:
            assert state == "incomplete", (state, reason)
            dataset.take_over(self.cached(which, name), missing)
            self.adopt_fetched(which, name, missing.values())

    def adopt_fetched(self, which: int, name: str, missing: Iterable[Version]) -> None:
        """Go on with what a load that found no room has fetched: as much as it says, all of it a load's."""
        dataset, status = self.datasets[name], self.call(which, "status")
        (record,) = (each for each in status["attached"] if each["name"] == name)
        counters = status["datasets"][record["id"]]["counters"]
        fetched = counters["source_bytes"] - dataset.counted["source_bytes"]
        assert counters["load_bytes"] - dataset.counted["load_bytes"] == fetched
        assert fetched <= sum(map(length_of, missing))
        for each in ("source_bytes", "load_bytes", "not_admitted", "not_admitted_bytes"):
            assert counters[each] >= dataset.counted[each]
            dataset.counted[each] = counters[each]

    # ---- writes

    @rule(which=which_process, name=names, inside=insides, length=lengths)
    def put(self, which: int, name: str, inside: str, length: int) -> None:
        path = f"{name}/{inside}"
        self.call(which, "put", f"{name}/{path}", self.source.announce(length), length)
        self.datasets[name].write(path, self.objects(name)[path])

    @rule(which=which_process, name=names, inside=insides)
    def delete(self, which: int, name: str, inside: str) -> None:
        path = f"{name}/{inside}"
        if path in self.objects(name):
            self.call(which, "delete", f"{name}/{path}")
            self.datasets[name].drop(path)
            self.datasets[name].counted["writes"] += 1

    # ---- what is said

    @rule(which=which_process, name=names, quota=quotas)
    def set_quota(self, which: int, name: str, quota: int | None) -> None:
        assert self.call(which, "set_quota", name, quota).quota_bytes == quota
        self.datasets[name].quota = quota

    @rule(which=which_process, name=names, place=places, is_pinned=st.booleans())
    def pin(self, which: int, name: str, place: str, is_pinned: bool) -> None:
        self.say_pin(which, name, place, is_pinned=is_pinned)

    def say_pin(self, which: int, name: str, place: str, *, is_pinned: bool) -> None:
        count = self.call(which, "pin" if is_pinned else "unpin", f"{name}/{name}{place}")
        dataset = self.datasets[name]
        dataset.pin(f"{name}{place}", is_pinned=is_pinned)
        assert count == sum(is_at_or_below(path, f"{name}{place}") for path in dataset.cached)

    @rule(which=which_process, name=names, place=places, metadata=st.booleans())
    def free(self, which: int, name: str, place: str, metadata: bool) -> None:
        self.call(which, "free", f"{name}/{name}{place}", True, metadata)
        self.datasets[name].drop(f"{name}{place}")

    @precondition(lambda self: self.attachments < 20)
    @rule(which=which_process, name=names)
    def detach_and_attach(self, which: int, name: str) -> None:
        """A new account, no quota, no pins, and nothing of the old one is cached."""
        self.call(which, "detach", name)
        self.attach(which, name)

    # ---- life and death

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def open_another(self) -> None:
        self.processes.append(CacheProcess(self.place))

    @rule(which=which_process, how=st.sampled_from(["close", "kill"]))
    def end_one(self, which: int, how: str) -> None:
        process = self.processes.pop(which % len(self.processes))
        process.close() if how == "close" else process.kill()
        if not self.processes:
            self.open_another()

    @rule(how=st.sampled_from(["close", "kill"]))
    def end_all(self, how: str) -> None:
        """Whoever opens the cache next finds everything as it was."""
        while self.processes:
            process = self.processes.pop()
            process.close() if how == "close" else process.kill()
        self.open_another()

    @rule(
        which=which_process,
        name=names,
        call=st.sampled_from(["read_many", "load", "free", "put", "pin", "unpin"]),
        inside=insides,
        length=lengths,
        after_us=st.integers(0, 5_000),
    )
    def kill_one_amid(
        self, which: int, name: str, call: str, inside: str, length: int, after_us: int
    ) -> None:
        """Whatever part of the call was done, room and account are exact afterwards."""
        there, root = self.objects(name), f"{name}/{name}"
        arguments: dict[str, tuple[Any, ...]] = {
            "read_many": ([f"{name}/{path}" for path in there],),
            "load": (root,),
            "free": (root, True, True),
            "put": (f"{root}/{inside}", self.source.announce(length), length),
            "pin": (root,),
            "unpin": (root,),
        }
        process = self.processes.pop(which % len(self.processes))
        process.post(call, *arguments[call])
        time.sleep(after_us / 1e6)
        process.kill()
        if call == "put":
            # Who opens it next sees to what a killed writer has left; others keep tickets for later writes.
            while self.processes:
                self.processes.pop().close()
        if not self.processes:
            self.open_another()
        if call == "put":
            self.wait_until(lambda: self.tickets() == [], "the ticket is seen to")
        if call in ("pin", "unpin"):
            # It may be said and carried out in part: said again, it is done.
            self.say_pin(-1, name, "", is_pinned=call == "pin")
        self.adopt(name, there)

    def tickets(self) -> list[Path]:
        return list(Path(self.place.path, "v1/writes").glob("*.write"))

    def adopt(self, name: str, there: Mapping[str, Version]) -> None:
        """Go on with what a killed process has done, within what it can have done at most."""
        dataset = self.datasets[name]
        before = dataset.cached_bytes
        self.wait_until(
            lambda: self.committed(-1, name) == sum(map(length_of, self.cached(-1, name).values())),
            f"{self.committed(-1, name)} bytes are those of {self.cached(-1, name)}",
        )
        dataset.cached = self.cached(-1, name)
        if dataset.quota is not None:
            assert dataset.cached_bytes <= max(before, dataset.quota) + FETCH_THREADS * BLOCK
        status = self.call(-1, "status")
        (record,) = (each for each in status["attached"] if each["name"] == name)
        counters = status["datasets"][record["id"]]["counters"]
        assert all(counters[each] >= dataset.counted[each] for each in COUNTED)
        count, size = len(there), sum(map(length_of, there.values()))
        for each, most in (("hits_mem", count), ("misses_cold", count), ("source_bytes", size)):
            assert counters[each] <= dataset.counted[each] + most, each
        dataset.counted.update({each: counters[each] - dataset.counted[each] for each in COUNTED})
        sent = self.source.requests(dataset.uri)
        requests = status["accounts"][name]["requests"]
        unsent = {kind: requests[kind] - sent[kind] for kind in requests}
        assert all(0 <= unsent[kind] - dataset.unsent[kind] <= FETCH_THREADS for kind in requests), unsent
        dataset.unsent.update({kind: unsent[kind] - dataset.unsent[kind] for kind in requests})
        dataset.open |= {version.etag for version in self.objects(name).values()}

    # ---- what holds

    @invariant()
    def room_and_accounts_are_exact(self) -> None:
        if not self.datasets or not self.processes:
            return
        self.turn += 1
        for dataset in self.datasets.values():
            self.wait_until(
                lambda: self.committed(self.turn, dataset.name) == dataset.cached_bytes,  # noqa: B023
                f"{dataset.name}: {self.committed(self.turn, dataset.name)} of {dataset.cached_bytes} bytes",
            )
        status = self.call(self.turn, "status")
        for dataset in self.datasets.values():
            dataset.judge(status, self.source.requests(dataset.uri))
        counted = [each["counters"] for each in status["datasets"].values() if each["counters"]]
        for name in DATASET_COUNTERS:
            assert status["counters"][name] == sum(counters[name] for counters in counted), name
