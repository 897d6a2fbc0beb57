"""The state machine: operations of two processes on one cache, crashes among them, against the model."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from forebay.config import KIB, MIB
from forebay.errors import PinLimit
from forebay.store import Tier
from tests.property._model import Model
from tests.property._process import StoreProcess, Value

BLOCK = 64 * KIB
FILE_BLOCKS = 18

FILES = [b"f0", b"f1"]
KEYS = [b"%d" % number for number in range(12)] + [b"f0/0", b"f1/17", b"long" * 50, b"\0"]

keys = st.sampled_from(KEYS)
lengths = st.sampled_from([0, 1, 63, 64, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 200_000])
datasets = st.integers(0, 2)
handles = st.integers(0, 1)
ttls = st.sampled_from([None, None, None, 3, 100, 5000])
batches = st.lists(keys, max_size=6)
pins = st.sampled_from([False, False, False, True])
media = st.sampled_from([None, None, "MEM", "SSD"])


@dataclass(frozen=True)
class Kind:
    """One shape of a cache. A roomy one holds everything that a run puts into it."""

    tiers: tuple[tuple[str, int], ...]
    retentions: tuple[str, str, str] = ("epoch", "epoch", "epoch")

    @property
    def roomy(self) -> bool:
        return self.tiers[0][1] >= 128 * MIB


KINDS = [
    Kind((("MEM", 128 * MIB),)),
    Kind((("SSD", 128 * MIB),)),
    Kind((("MEM", 6 * MIB),), ("epoch", "s3fifo", "lru")),
    Kind((("MEM", 8 * MIB), ("SSD", 16 * MIB)), ("lru", "s3fifo", "epoch")),
]


class StoreMachine(RuleBasedStateMachine):
    """Every value put is another one, so that older bytes are never right by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = tempfile.mkdtemp(prefix="forebay-machine-", dir="/dev/shm")
        self.disk = tempfile.mkdtemp(prefix="forebay-machine-")
        self.processes: list[StoreProcess] = []
        self.held: list[list[Any]] = []
        self.seed = 0

    @initialize(kind=st.sampled_from(KINDS), checksum=st.sampled_from(["load", "read", "none"]))
    def begin(self, kind: Kind, checksum: str) -> None:
        self.kind = kind
        self.tiers = [
            Tier(f"{self.memory if medium == 'MEM' else self.disk}/{medium}", quota, medium)  # type: ignore[arg-type]
            for medium, quota in kind.tiers
        ]
        self.options = {"block_bytes": BLOCK, "maintainer": False, "checksum": checksum, "rows": 4}
        self.model = Model(kind.roomy)
        self.open_another()

    def teardown(self) -> None:
        try:
            if self.processes:
                self.finish_rebuild()
                self.audit(0, maintained=True)
            for process in self.processes:
                process.close()
        finally:
            shutil.rmtree(self.memory)
            shutil.rmtree(self.disk)

    # ---- helpers

    def process(self, which: int) -> StoreProcess:
        return self.processes[which % len(self.processes)]

    def value(self, length: int) -> Value:
        self.seed += 1
        return Value(self.seed, length)

    def cache_path(self) -> str:
        return f"{self.disk}/cache"

    def ask_whether_rebuilding(self, which: int) -> None:
        """Asked before a get: what is not there then may still be found."""
        self.model.rebuilding = self.model.rebuilding and self.process(which).call("rebuilding")

    def finish_rebuild(self) -> None:
        while self.process(0).call("rebuilding"):
            self.process(0).call("maintain")
        self.model.rebuilding = False

    def note_put(
        self,
        key: bytes,
        value: Value,
        dataset: int,
        admitted: bool,
        began: float,
        *,
        ttl_s: float | None = None,
        pinned: bool = False,
    ) -> None:
        if admitted:
            self.model.put(key, value, dataset, ttl_s, began, pinned=pinned)
        else:
            assert not self.model.roomy, f"{key!r} was not admitted"

    # ---- operations

    @rule(which=handles, key=keys, length=lengths, dataset=datasets, ttl_s=ttls, pinned=pins, medium=media)
    def put(
        self,
        which: int,
        key: bytes,
        length: int,
        dataset: int,
        ttl_s: float | None,
        pinned: bool,
        medium: str | None,
    ) -> None:
        value, began = self.value(length), self.model.now()
        terms = {"dataset": dataset, "ttl_s": ttl_s, "pinned": pinned, "medium": medium}
        admitted = self.process(which).call("put", key, value, terms)
        self.note_put(key, value, dataset, admitted, began, ttl_s=ttl_s, pinned=pinned)

    @rule(which=handles, key=keys, length=lengths, dataset=datasets, pinned=pins, keep=st.booleans())
    def reserve(self, which: int, key: bytes, length: int, dataset: int, pinned: bool, keep: bool) -> None:
        value, began = self.value(length), self.model.now()
        terms = {"dataset": dataset, "pinned": pinned}
        admitted = self.process(which).call("reserve", key, value, terms, keep)
        if keep:
            self.note_put(key, value, dataset, admitted, began, pinned=pinned)

    @rule(which=handles, count=st.integers(10, 60), dataset=datasets)
    def put_many(self, which: int, count: int, dataset: int) -> None:
        """Pressure: in a small cache a few of these turn it over."""
        began = self.model.now()
        blocks = [(b"many %d" % number, self.value(50_000), dataset) for number in range(count)]
        admitted = self.process(which).call("put_all", blocks)
        for (key, value, _), answer in zip(blocks, admitted, strict=True):
            self.note_put(key, value, dataset, answer, began)

    @rule(which=handles, key=keys)
    def get(self, which: int, key: bytes) -> None:
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        self.model.observe(key, self.process(which).call("get", key), began)

    @rule(which=handles, key=keys, offset=lengths, length=lengths)
    def readinto(self, which: int, key: bytes, offset: int, length: int) -> None:
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        part = self.process(which).call("read_part", key, offset, length)
        if part is None:
            self.model.observe(key, None, began)
        else:
            assert not self.model.must_be_gone(key, began)
            values = self.model.of(key).values
            assert part in [value.data()[offset : offset + length] for value in values]

    @rule(which=handles, key=keys)
    def delete(self, which: int, key: bytes) -> None:
        self.ask_whether_rebuilding(which)
        must, began = self.model.must_be_there(key), self.model.now()
        was_there = self.process(which).call("delete", key)
        assert was_there or not must
        assert not was_there or not self.model.must_be_gone(key, began)
        self.model.delete(key)

    @rule(which=handles, key=keys, ttl_s=ttls)
    def expire(self, which: int, key: bytes, ttl_s: float | None) -> None:
        self.ask_whether_rebuilding(which)
        must, began = self.model.must_be_there(key), self.model.now()
        was_there = self.process(which).call("expire", key, ttl_s)
        assert was_there or not must
        if was_there:
            self.model.expire(key, ttl_s, began)

    @rule(which=handles, key=keys, pinned=st.booleans())
    def pin(self, which: int, key: bytes, pinned: bool) -> None:
        self.ask_whether_rebuilding(which)
        must = self.model.must_be_there(key)
        try:
            was_there = self.process(which).call("pin" if pinned else "unpin", key)
        except PinLimit:
            assert not self.model.roomy
            return
        assert was_there or not must
        if was_there:
            self.model.pin(key, pinned)

    @rule(which=handles, batch=batches)
    def delete_many(self, which: int, batch: list[bytes]) -> None:
        self.ask_whether_rebuilding(which)
        least, most = self.model.how_many(dict.fromkeys(batch), self.model.now())
        assert least <= self.process(which).call("delete_many", batch) <= most
        for key in batch:
            self.model.delete(key)

    @rule(which=handles, batch=batches, ttl_s=ttls)
    def expire_many(self, which: int, batch: list[bytes], ttl_s: float | None) -> None:
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        least, most = self.model.how_many(dict.fromkeys(batch), began)
        assert least <= self.process(which).call("expire_many", batch, ttl_s) <= most
        for key in dict.fromkeys(batch):
            self.model.may_expire(key, ttl_s, began)

    @rule(which=handles, batch=batches, pinned=st.booleans())
    def pin_many(self, which: int, batch: list[bytes], pinned: bool) -> None:
        self.ask_whether_rebuilding(which)
        least, most = self.model.how_many(dict.fromkeys(batch), self.model.now())
        try:
            count = self.process(which).call("pin_many" if pinned else "unpin_many", batch)
        except PinLimit:
            assert not self.model.roomy
            return
        assert least <= count <= most
        for key in batch:
            self.model.may_pin(key, pinned)

    @rule(which=handles, batch=batches)
    def contains_many(self, which: int, batch: list[bytes]) -> None:
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        for key, there in zip(batch, self.process(which).call("contains_many", batch), strict=True):
            assert there or not self.model.must_be_there(key)
            assert not there or not self.model.must_be_gone(key, began)

    @rule(which=handles, seconds=st.sampled_from([1, 5, 700, 10_000]))
    def advance_clock(self, which: int, seconds: int) -> None:
        self.process(which).call("advance_clock", seconds)
        self.model.advance(seconds)

    @rule(which=handles, rounds=st.integers(1, 5))
    def maintain(self, which: int, rounds: int) -> None:
        for _ in range(rounds):
            self.process(which).call("maintain")

    @rule(which=handles, dataset=datasets)
    def free_dataset(self, which: int, dataset: int) -> None:
        self.process(which).call("free_dataset", dataset)
        self.model.free(dataset)

    @rule(which=handles, key=keys)
    def hold(self, which: int, key: bytes) -> None:
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        found = self.process(which).call("hold", key)
        self.model.observe(key, found, began)
        if found is not None:
            self.held[which % len(self.processes)].append(found)

    @rule(which=handles)
    def let_go(self, which: int) -> None:
        assert self.process(which).call("held_digests") == self.held[which % len(self.processes)]
        self.process(which).call("let_go")
        self.held[which % len(self.processes)] = []

    @rule(which=handles, name=st.sampled_from(FILES), dataset=datasets, pinned=pins, keep=st.booleans())
    def write_file(self, which: int, name: bytes, dataset: int, pinned: bool, keep: bool) -> None:
        self.seed += 1
        whole = Value(self.seed, FILE_BLOCKS * BLOCK - 1000)
        parts = [
            Value(self.seed, min(BLOCK, whole.length - start), start)
            for start in range(0, whole.length, BLOCK)
        ]
        blocks = [(name + b"/%d" % number, part) for number, part in enumerate(parts)]
        began = self.model.now()
        terms = {"dataset": dataset, "pinned": pinned}
        complete = self.process(which).call("write_file", name, blocks, terms, keep)
        assert complete == (keep and self.model.roomy)
        if self.model.roomy:
            for key, part in blocks:
                self.model.put(key, part, dataset, None, began, pinned=pinned)
                if not keep:
                    self.model.delete(key)
        if complete:
            self.model.put(name, whole, dataset, None, began)
            self.model.of(name).surely = False
            self.get_file(which, name)

    @rule(which=handles, name=st.sampled_from(FILES))
    def get_file(self, which: int, name: bytes) -> None:
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        self.model.observe(name, self.process(which).call("get_file", name), began)

    # ---- life and death

    @precondition(lambda self: len(self.processes) < 2)
    @rule()
    def open_another(self) -> None:
        process = StoreProcess(self.cache_path(), self.tiers, self.options)
        for dataset, retention in enumerate(self.kind.retentions):
            process.call("set_retention", dataset, retention)
        self.processes.append(process)
        self.held.append([])

    @rule(which=handles)
    def close_one(self, which: int) -> None:
        self.process(which).close()
        self.drop(which)

    @rule(which=handles)
    def kill_one(self, which: int) -> None:
        self.process(which).kill()
        self.drop(which)

    @rule(
        which=handles,
        choices=st.lists(st.tuples(keys, st.none() | lengths), min_size=5, max_size=60),
        after_us=st.integers(0, 4000),
    )
    def kill_one_amid(self, which: int, choices: Sequence[tuple[bytes, int | None]], after_us: int) -> None:
        """Kill it while it puts and deletes; whoever is left, or comes, finds the rest as it was."""
        changes = [(key, None if length is None else self.value(length)) for key, length in choices]
        dataset_of = {key: self.model.of(key).dataset for key in KEYS}
        self.process(which).post("change_all", [(key, value, dataset_of[key]) for key, value in changes])
        threading.Event().wait(after_us / 1e6)
        self.process(which).kill()
        self.model.crash_amid(changes)
        self.drop(which)

    def drop(self, which: int) -> None:
        del self.held[which % len(self.processes)]
        del self.processes[which % len(self.processes)]
        if not self.processes:
            self.open_another()

    # When a rebuild ends depends on the machine's speed, so what rules there are must not depend on it.
    @rule(cleanly=st.booleans(), finish=st.booleans())
    def lose_index(self, cleanly: bool, finish: bool) -> None:
        if self.model.rebuilding:
            self.finish_rebuild()
        for process in self.processes:
            if cleanly:
                process.close()
            else:
                process.kill()
        self.processes.clear()
        self.held.clear()
        os.unlink(Path(self.cache_path()) / "v1" / "index")
        self.model.lose_index()
        self.open_another()
        if finish:
            self.finish_rebuild()

    # ---- the account

    @rule(which=handles, maintained=st.booleans())
    def audit(self, which: int, maintained: bool) -> None:
        """All that a get returns, the sums over it, and the store's own check of itself."""
        process = self.process(which)
        if maintained:
            process.call("maintain")
        self.ask_whether_rebuilding(which)
        began = self.model.now()
        found = process.call("get_all", [key for key in self.model.known() if key not in FILES])
        for key, digest in found.items():
            self.model.observe(key, digest, began)
        present = {key: digest[0] for key, digest in found.items() if digest is not None}
        status = process.call("status")
        if not self.model.may_have_expired():
            assert status["committed_bytes"] == sum(present.values())
            assert status["blocks"] == len(present)
        if self.model.roomy and not self.model.rebuilding:
            self.audit_pins(present, sum(tier["pinned_bytes"] for tier in status["tiers"]))
        report = process.call("check")
        assert report.ok, report

    def audit_pins(self, present: dict[bytes, int], pinned_bytes: int) -> None:
        if any(self.model.of(key).pin_unsure for key in present) or self.model.may_have_expired():
            return
        assert pinned_bytes == sum(length for key, length in present.items() if self.model.of(key).pinned)
