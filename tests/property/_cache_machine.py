"""The state machine: processes with one cache over an under storage that changes, fails and stalls."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from forebay.config import KIB, MIB, Tier
from forebay.errors import Stale
from tests.property._cache_model import DIRECTORIES, PATHS, Answer, Handle, Sight
from tests.property._cache_process import CacheProcess, Digest, Place
from tests.property._cache_source import STALL_S_MAX, Fault, Source

BLOCK: Final = 64 * KIB
STALL_TIMEOUT_S: Final = 0.3
# Of taking over: steps of waiting, and a machine that others use as well. The stalled one goes on later.
TAKE_OVER_S_MAX: Final = STALL_S_MAX / 2

which_process = st.integers(0, 2)
names = st.sampled_from(["none", "zero", "some"])
paths = st.sampled_from(PATHS)
places = st.sampled_from(["", *DIRECTORIES, *PATHS])
lengths = st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 20 * BLOCK + 5, 40 * BLOCK])
offsets = st.sampled_from([0, 0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3, 19 * BLOCK, 50 * BLOCK])
changes = st.tuples(paths, st.none() | lengths)
odd = st.sampled_from(
    [Fault("read_range", "short"), Fault("read_range", "forbidden"), Fault("stat", "forbidden")]
)
operations = st.sampled_from(["stat", "list", "read_range", "readinto"])
errors = st.builds(Fault, operations, st.sampled_from(["error", "timeout"]))
moves = st.builds(Fault, operations, st.just("change"), changes)
breaks = st.builds(Fault, st.just("readinto"), st.just("stale"), changes)
some_faults: st.SearchStrategy[list[Fault]] = st.lists(errors | odd | moves | breaks, max_size=2)
no_faults: st.SearchStrategy[list[Fault]] = st.just([])
faults = st.one_of(some_faults, no_faults, no_faults)


@dataclass(frozen=True)
class Kind:
    """One shape of a cache; manual: a clock that is moved, and long ages."""

    tiers: tuple[tuple[str, int], ...]
    retention: str
    is_manual: bool
    checksum: str = "load"


KINDS: Final = [
    Kind((("MEM", 128 * MIB),), "epoch", is_manual=True),
    Kind((("MEM", 128 * MIB),), "epoch", is_manual=False, checksum="read"),
    Kind((("MEM", 8 * MIB),), "s3fifo", is_manual=True),
    Kind((("MEM", 6 * MIB), ("SSD", 64 * MIB)), "lru", is_manual=False),
]


class CacheMachine(RuleBasedStateMachine):
    """Each dataset is the same storage with another freshness."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Path(tempfile.mkdtemp(prefix="forebay-machine-", dir="/dev/shm"))
        self.disk = Path(tempfile.mkdtemp(prefix="forebay-machine-"))
        self.processes: list[CacheProcess] = []
        self.handles: list[list[Handle]] = []
        self.held: list[list[Digest]] = []

    @initialize(kind=st.sampled_from(KINDS), objects=st.lists(changes, max_size=6))
    def begin(self, kind: Kind, objects: list[tuple[str, int | None]]) -> None:
        (self.disk / "source").mkdir()
        self.source = Source(self.disk / "source", is_manual=kind.is_manual)
        for path, length in objects:
            self.source.put(path, length)
        self.place = Place(
            path=str(self.disk / "cache"),
            tiers=tuple(
                Tier(str((self.memory if medium == "MEM" else self.disk) / medium), quota, medium)  # type: ignore[arg-type]
                for medium, quota in kind.tiers
            ),
            options={
                "block_bytes": BLOCK,
                "checksum": kind.checksum,
                "stall_timeout_s": STALL_TIMEOUT_S,
                "fetch_threads": 4,
            },
            source=self.disk / "source",
            is_manual=kind.is_manual,
        )
        age_s = 60.0 if kind.is_manual else 0.02
        sights = [Sight("none", None), Sight("zero", 0.0), Sight("some", age_s, age_s / 2)]
        self.sights = {sight.name: sight for sight in sights}
        self.open_another()
        for sight in sights:
            self.processes[0].call(
                "attach",
                sight.name,
                f"shared://{sight.name}",
                sight.max_age,
                sight.negative_ttl,
                kind.retention,
            )

    def teardown(self) -> None:
        try:
            if self.processes:
                self.end()
        finally:
            for process in self.processes:
                process.kill()
            shutil.rmtree(self.memory)
            shutil.rmtree(self.disk)

    def end(self) -> None:
        """All is healed: everything reads right, the account is right, and nothing is left behind."""
        self.source.plan([])
        for name in self.sights:
            for path in PATHS:
                self.read(0, name, path, 0, None, [])
        self.audit(0)
        while self.processes:
            self.processes.pop().close()
        # What a killed load left in its job's folder goes with the job.
        files = [path for path in Path(self.place.path).rglob("*") if "jobs" not in path.parts]
        left = [path.name for path in files if path.suffix in (".new", ".tmp")]
        assert left == [], left

    # ---- helpers

    def index(self, which: int) -> int:
        return which % len(self.processes)

    def ask(self, which: int, name: str, *arguments: Any, planned: Sequence[Fault] = ()) -> Answer:
        """Call a process while these faults strike; they are over afterwards."""
        self.source.plan(list(planned))
        began_ns = self.source.clock.boot_ns()
        self.processes[self.index(which)].post(name, *arguments)
        return self.collect(which, began_ns)

    def collect(self, which: int, began_ns: int) -> Answer:
        """Take the answer to a call that was posted."""
        value, error = None, None
        try:
            value = self.processes[self.index(which)].answer()
        except (OSError, ValueError, LookupError) as raised:
            error = raised
        answer = Answer(value, error, began_ns, self.source.look())
        if answer.state.faults or answer.state.fired:
            self.source.plan([])
        return answer

    def ask_healed(
        self, which: int, sight: Sight, paths: Sequence[str], planned: Sequence[Fault], *call: Any
    ) -> Answer:
        """Call as ``ask``; what a fault made fail does not once that is over."""
        answer = self.ask(which, *call, planned=planned)
        if answer.error is not None:
            sight.judge_error(answer, paths)
            answer = self.ask(which, *call)
            if answer.error is not None:
                sight.judge_error(answer, paths)
        return answer

    # ---- the source

    @rule(change=changes)
    def change(self, change: tuple[str, int | None]) -> None:
        self.source.put(*change)

    @rule(path=paths)
    def overwrite_with_same_size(self, path: str) -> None:
        versions = self.source.look().history.get(path, [])
        length = versions[-1].length if versions else None
        self.source.put(path, BLOCK if length is None else length)

    @rule(ages=st.sampled_from([0.3, 0.6, 1.1, 3.0]))
    def pass_time(self, ages: float) -> None:
        self.source.advance(ages * (self.sights["some"].max_age or 0.0))

    # ---- reads

    @rule(
        which=which_process,
        name=names,
        path=paths,
        offset=offsets,
        length=st.none() | lengths,
        planned=faults,
    )
    def read(
        self, which: int, name: str, path: str, offset: int, length: int | None, planned: list[Fault]
    ) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, [path], planned, "read", f"{name}/{path}", offset, length)
        if answer.error is None:
            sight.see(*sight.judge_bytes(answer, path, answer.value, offset, length))

    @rule(which=which_process, name=names, path=paths, offset=offsets, length=lengths, planned=faults)
    def readinto(
        self, which: int, name: str, path: str, offset: int, length: int, planned: list[Fault]
    ) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, [path], planned, "readinto", f"{name}/{path}", offset, length)
        if answer.error is None:
            sight.see(*sight.judge_bytes(answer, path, answer.value, offset, length))

    @rule(which=which_process, name=names, several=st.lists(paths, max_size=8), planned=faults)
    def read_many(self, which: int, name: str, several: list[str], planned: list[Fault]) -> None:
        sight = self.sights[name]
        call = ("read_many", [f"{name}/{path}" for path in several])
        answer = self.ask_healed(which, sight, several, planned, *call)
        if answer.error is None:
            self.see_all(sight, answer, several)

    def see_all(self, sight: Sight, answer: Answer, several: Sequence[str]) -> None:
        """Judge all before any is noted: they were read side by side, and one path perhaps several times."""
        found = zip(several, answer.value, strict=True)
        sight.see_side_by_side([sight.judge_bytes(answer, path, digest, 0, None) for path, digest in found])

    @rule(which=which_process, name=names, path=paths, planned=faults)
    def views(self, which: int, name: str, path: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        answer = self.ask(which, "views", f"{name}/{path}", planned=planned)
        if answer.error is not None:
            sight.judge_error(answer, [path], keeps_version=True)
            if not isinstance(answer.error, Stale):
                # That failed before the version could be told to be another.
                answer = self.ask(which, "views", f"{name}/{path}")
                if answer.error is not None:
                    sight.judge_error(answer, [path], keeps_version=True)
        if answer.error is not None:
            # It is told once: who begins anew begins with what there is.
            answer = self.ask_healed(which, sight, [path], [], "views", f"{name}/{path}")
        if answer.error is None:
            sight.see(*sight.judge_bytes(answer, path, answer.value, 0, None))

    @rule(which=which_process, name=names, path=paths)
    def hold(self, which: int, name: str, path: str) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, [path], [], "hold", f"{name}/{path}")
        if answer.error is None:
            sight.see(*sight.judge_bytes(answer, path, answer.value, 0, None))
            self.held[self.index(which)].append(answer.value)

    @rule(which=which_process)
    def look_at_what_is_held(self, which: int) -> None:
        found = self.processes[self.index(which)].call("held")
        assert found == self.held[self.index(which)][-len(found) or None :]

    # ---- open files

    @rule(which=which_process, name=names, path=paths, planned=faults)
    def open_file(self, which: int, name: str, path: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, [path], planned, "open", f"{name}/{path}")
        if answer.error is None:
            etag, size = answer.value
            _, number = sight.judge_stat(answer, path, (etag, size, False))
            sight.see(path, number)
            handle = Handle(name, path, answer.versions(path)[number], number)
            self.handles[self.index(which)].append(handle)

    @rule(which=which_process, number=st.integers(0, 9), offset=offsets, length=lengths, planned=faults)
    def read_file(self, which: int, number: int, offset: int, length: int, planned: list[Fault]) -> None:
        handles = self.handles[self.index(which)]
        if handles:
            number %= len(handles)
            answer = self.ask(which, "read_file", number, offset, length, planned=planned)
            self.sights[handles[number].dataset].judge_file(answer, handles[number], offset, length)

    # ---- metadata

    @rule(which=which_process, name=names, path=paths | st.sampled_from(DIRECTORIES[1:]), planned=faults)
    def stat(self, which: int, name: str, path: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, [path], planned, "stat", f"{name}/{path}")
        if answer.error is None:
            sight.see(*sight.judge_stat(answer, path, answer.value))

    @rule(which=which_process, name=names, directory=st.sampled_from(DIRECTORIES), planned=faults)
    def listdir(self, which: int, name: str, directory: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        call = ("listdir", f"{name}/{directory}")
        answer = self.ask_healed(which, sight, [directory], planned, *call)
        if answer.error is None:
            sight.judge_names(answer, directory, answer.value)

    @rule(which=which_process, name=names, planned=faults)
    def walk(self, which: int, name: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, DIRECTORIES, planned, "walk", name)
        if answer.error is None:
            for directory, directories, objects in answer.value:
                below = directory[len(name) + 1 :]
                sight.judge_names(answer, below, sorted({*directories, *objects}))

    @rule(
        which=which_process,
        name=names,
        path=places,
        planned=faults,
    )
    def sync(self, which: int, name: str, path: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        answer = self.ask_healed(which, sight, [path], planned, "sync", f"{name}/{path}")
        if answer.error is None:
            sight.ask_all(answer, path)

    @rule(
        which=which_process,
        name=names,
        path=places,
        data=st.booleans(),
        metadata=st.booleans(),
    )
    def free(self, which: int, name: str, path: str, data: bool, metadata: bool) -> None:
        answer = self.ask(which, "free", f"{name}/{path}", data, metadata)
        assert answer.error is None, answer.error
        if metadata:
            self.sights[name].forget_all(answer, path)
            for handle in itertools.chain.from_iterable(self.handles):
                handle.is_forgotten = handle.is_forgotten or handle.dataset == name

    @rule(
        which=which_process,
        name=names,
        path=places,
        planned=faults,
    )
    def load(self, which: int, name: str, path: str, planned: list[Fault]) -> None:
        sight = self.sights[name]
        answer = self.ask(which, "load", f"{name}/{path}", planned=planned)
        if answer.error is not None:
            sight.judge_error(answer, [path])
            return
        state, reason = answer.value
        assert state in ("done", "incomplete", "failed"), (state, reason)
        if not answer.fired and not answer.has_changed(PATHS):
            is_there = not path or not sight.may_be_absent(answer, path, 0.0)
            assert state != "failed" or not is_there, reason
            if state == "done":
                sight.find_present(answer, path)

    # ---- side by side

    @precondition(lambda self: len(self.processes) > 1)
    @rule(
        name=names,
        several=st.lists(paths, min_size=1, max_size=4),
        meanwhile=st.lists(changes, max_size=3),
        planned=faults,
    )
    def race(
        self, name: str, several: list[str], meanwhile: list[tuple[str, int | None]], planned: list[Fault]
    ) -> None:
        """All processes read the same while it changes."""
        sight, began_ns = self.sights[name], self.source.clock.boot_ns()
        self.source.plan(planned)
        for process in self.processes:
            process.post("read_many", [f"{name}/{path}" for path in several])
        for each in meanwhile:
            self.source.put(*each)
        answers = [self.collect_keeping_faults(which, began_ns) for which in range(len(self.processes))]
        self.source.plan([])
        self.see_race(sight, answers, [(several, answer.value) for answer in answers])

    def see_race(
        self, sight: Sight, answers: Sequence[Answer], found: Sequence[tuple[Sequence[str], Any]]
    ) -> None:
        """Judge what processes read at once, paths and digests of each, before any of it is noted."""
        seen = []
        for answer, (several, digests) in zip(answers, found, strict=True):
            if answer.error is not None:
                sight.judge_error(answer, several)
                continue
            for path, digest in zip(several, digests, strict=True):
                seen.append(sight.judge_bytes(answer, path, digest, 0, None))
        # Of one that failed nobody knows what it was told before that, and that may be what is kept.
        if all(answer.error is None for answer in answers):
            sight.see_side_by_side(seen)

    def collect_keeping_faults(self, which: int, began_ns: int) -> Answer:
        """Take one of several answers, for all of which the same faults may strike."""
        value, error = None, None
        try:
            value = self.processes[which].answer()
        except (OSError, ValueError, LookupError) as raised:
            error = raised
        return Answer(value, error, began_ns, self.source.look())

    @precondition(lambda self: len(self.processes) > 1)
    @rule(
        name=names,
        path=paths,
        operation=st.sampled_from(["read_range", "readinto"]),
        ends=st.sampled_from(["goes on", "killed"]),
    )
    def stall(self, name: str, path: str, operation: Any, ends: str) -> None:
        """One process's fetch stands still: the other reads all the same, before that one goes on or dies."""
        sight, began_ns = self.sights[name], self.source.clock.boot_ns()
        self.source.plan([Fault(operation, "stall")])
        self.processes[0].post("read", f"{name}/{path}", 0, None)
        self.processes[1].post("read", f"{name}/{path}", 0, None)
        gives_up_at = time.monotonic() + TAKE_OVER_S_MAX
        while not (done := [which for which in (0, 1) if self.processes[which].has_answered()]):
            assert time.monotonic() < gives_up_at, "nobody takes over"
            time.sleep(0.001)
        answers = [self.collect_keeping_faults(done[0], began_ns)]
        other = 1 - done[0]
        if ends == "killed":
            self.kill_one(other)
            self.source.plan([])
        else:
            self.source.plan([])
            answers.append(self.collect_keeping_faults(other, began_ns))
        self.see_race(sight, answers, [([path], [answer.value]) for answer in answers])

    # ---- life and death

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def open_another(self) -> None:
        self.processes.append(CacheProcess(self.place))
        self.handles.append([])
        self.held.append([])

    @rule(which=which_process)
    def close_one(self, which: int) -> None:
        process = self.processes[self.index(which)]
        self.drop(which)
        process.close()

    @rule(which=which_process)
    def kill_one(self, which: int) -> None:
        process = self.processes[self.index(which)]
        process.kill()
        self.drop(which)

    @rule(
        which=which_process,
        name=names,
        call=st.sampled_from(["read_many", "sync", "load", "walk"]),
        after_us=st.integers(0, 6000),
    )
    def kill_one_amid(self, which: int, name: str, call: str, after_us: int) -> None:
        """Kill it in a call; whoever is left, or comes, goes on at once."""
        self.source.plan([])
        everything: Any = [f"{name}/{path}" for path in PATHS]
        self.processes[self.index(which)].post(call, everything if call == "read_many" else name)
        time.sleep(after_us / 1e6)
        self.kill_one(which)

    def drop(self, which: int) -> None:
        index = self.index(which)
        for each in (self.handles, self.held, self.processes):
            del each[index]
        if not self.processes:
            self.open_another()

    @rule(which=which_process)
    def audit(self, which: int) -> None:
        report = self.processes[self.index(which)].call("check")
        assert report.ok, report
