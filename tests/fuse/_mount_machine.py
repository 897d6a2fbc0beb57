"""The state machine of tests/property's model, through mounts: the storage changes, mounts are killed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound
from tests.fuse._served import ServedMount
from tests.property._cache_model import Answer, Sight
from tests.property._cache_process import Place, digest_of
from tests.property._cache_source import Source

BLOCK: Final = 64 * KIB
PATHS: Final = ["a", "b", "sub/b", "sub/deep/c"]
AGE_S: Final = 0.02
SLACK_S: Final = 0.05
# The kernel counts what it may keep from when it is told, which on a busy machine is later.
LATE_S: Final = 2.0

names = st.sampled_from(["none", "zero", "some"])
paths = st.sampled_from(PATHS)
places = st.sampled_from(["", "sub", "sub/deep", *PATHS])
lengths = st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 20 * BLOCK + 5])
offsets = st.sampled_from([0, 0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3, 19 * BLOCK, 50 * BLOCK])
changes = st.tuples(paths, st.none() | lengths)
GONE: Final = (errno.ENOTCONN, errno.ECONNABORTED)


class MountMachine(RuleBasedStateMachine):
    """Each dataset is the same storage with another freshness, and has a mount of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Path(tempfile.mkdtemp(prefix="forebay-machine-", dir="/dev/shm"))
        self.disk = Path(tempfile.mkdtemp(prefix="forebay-machine-"))
        self.mounts: dict[str, ServedMount] = {}
        self.files: list[tuple[str, str, int, set[int]]] = []
        self.cache: Cache | None = None

    @initialize(objects=st.lists(changes, max_size=6), quota=st.sampled_from([8 * MIB, 128 * MIB]))
    def begin(self, objects: list[tuple[str, int | None]], quota: int) -> None:
        (self.disk / "source").mkdir()
        self.source = Source(self.disk / "source", is_manual=False)
        for path, length in objects:
            self.source.put(path, length)
        self.place = Place(
            path=str(self.disk / "cache"),
            tiers=(Tier(str(self.memory / "tier"), quota, "MEM"),),
            options={"block_bytes": BLOCK, "fetch_threads": 4},
            source=self.disk / "source",
            is_manual=False,
        )
        self.cache = Cache(
            self.place.path, self.place.tiers, schemes=self.source.schemes(), **self.place.options
        )
        self.sights = {}
        self.seen_late = {}
        for name, age_s in {"none": None, "zero": 0.0, "some": AGE_S}.items():
            retention: Any = "epoch" if quota > 8 * MIB else "s3fifo"
            self.cache.attach(name, f"shared://{name}", max_age=age_s, negative_ttl=0.0, retention=retention)
            self.sights[name] = Sight(name, age_s and age_s + SLACK_S)
            self.seen_late[name] = Sight(name, age_s and age_s + LATE_S)

    def teardown(self) -> None:
        try:
            if self.cache is not None:
                self.end(self.cache)
        finally:
            for mount in self.mounts.values():
                mount.kill()
            shutil.rmtree(self.memory)
            shutil.rmtree(self.disk)

    def end(self, cache: Cache) -> None:
        """Everything reads right, mounts end well, and the account is right."""
        for name in self.sights:
            for path in PATHS:
                self.read(name, path, 0, 30 * BLOCK)
        for _, _, file, _ in self.files:
            # Its mount may be gone.
            with suppress(OSError):
                os.close(file)
        while self.mounts:
            self.mounts.popitem()[1].close()
        assert cache.check().ok
        cache.close()

    # ---- helpers

    def path_of(self, name: str, path: str) -> Path:
        if name not in self.mounts:
            self.mounts[name] = ServedMount(self.place, name, self.disk / f"mount-{name}")
        return self.mounts[name].path / path

    def ask(self, act: Callable[[], Any]) -> Answer:
        began_ns = self.source.clock.boot_ns()
        value, error = None, None
        try:
            value = act()
        except OSError as raised:
            error = raised
        return Answer(value, error, began_ns, self.source.look())

    def judge_error(self, answer: Answer, sight: Sight, path: str) -> None:
        """Hold an error to one that changes have caused."""
        assert isinstance(answer.error, OSError)
        if answer.error.errno == errno.ENOENT:
            is_caused = sight.may_be_absent(answer, path, sight.max_age)
        else:
            assert answer.error.errno == errno.ESTALE, answer.error
            is_caused = len(sight.possible(answer, path, sight.max_age)) > 1
        assert is_caused, f"nothing caused {answer.error!r}: {answer.versions(path)}"

    # ---- the source

    @rule(change=changes)
    def change(self, change: tuple[str, int | None]) -> None:
        self.source.put(*change)

    @rule(path=paths)
    def overwrite_with_same_size(self, path: str) -> None:
        versions = self.source.look().history.get(path, [])
        length = versions[-1].length if versions else None
        self.source.put(path, BLOCK if length is None else length)

    @rule()
    def pass_time(self) -> None:
        time.sleep(2 * AGE_S)

    # ---- through the mount

    @rule(name=names, path=paths, offset=offsets, length=lengths)
    def read(self, name: str, path: str, offset: int, length: int) -> None:
        place = self.path_of(name, path)
        self.judge_read(name, path, self.ask(lambda: read_range(place, offset, length)), offset, length)

    @rule(
        name=names,
        path=paths,
        length=st.none() | lengths,
        before=st.sampled_from(["read", "open", "sync", "free"]),
    )
    def read_replace_and_read(self, name: str, path: str, length: int | None, before: str) -> None:
        """What the kernel has of one version is not shown as another; of the same length, if None."""
        self.read(name, path, 0, 30 * BLOCK)
        if before == "open":
            self.open_file(name, path)
        if length is None:
            self.overwrite_with_same_size(path)
        else:
            self.source.put(path, length)
        if before == "sync":
            self.sync(name, path)
        elif before == "free":
            self.free(name, path, data=True, metadata=True)
        self.read(name, path, 0, 30 * BLOCK)
        if before == "open":
            self.read_file(-1, 0, 30 * BLOCK)

    @rule(name=names, path=paths, meanwhile=st.lists(changes, min_size=1, max_size=3))
    def read_while_it_changes(self, name: str, path: str, meanwhile: list[tuple[str, int | None]]) -> None:
        def change() -> None:
            for each in meanwhile:
                self.source.put(*each)

        place = self.path_of(name, path)
        thread = threading.Thread(target=change)
        began_ns = self.source.clock.boot_ns()
        thread.start()
        answer = self.ask(lambda: read_range(place, 0, 30 * BLOCK))
        thread.join()
        answer = Answer(answer.value, answer.error, began_ns, self.source.look())
        self.judge_read(name, path, answer, 0, 30 * BLOCK)

    def judge_read(self, name: str, path: str, answer: Answer, offset: int, length: int) -> None:
        sight = self.sights[name]
        if answer.error is not None:
            self.judge_error(answer, sight, path)
        else:
            sight.see(*sight.judge_bytes(answer, path, digest_of(answer.value), offset, length))

    @rule(name=names, path=paths)
    def stat(self, name: str, path: str) -> None:
        place = self.path_of(name, path)
        answer = self.ask(place.stat)
        sight = self.seen_late[name]
        if answer.error is not None:
            self.judge_error(answer, sight, path)
            return
        possible = sight.possible(answer, path, sight.max_age)
        assert answer.value.st_size in [version.length for _, version in possible], possible

    @rule(name=names, path=paths)
    def version(self, name: str, path: str) -> None:
        place = self.path_of(name, path)
        answer = self.ask(lambda: os.getxattr(place, "user.forebay.version").decode())
        sight = self.seen_late[name]
        if answer.error is not None:
            self.judge_error(answer, sight, path)
            return
        possible = sight.possible(answer, path, sight.max_age)
        assert answer.value in [version.etag for _, version in possible], possible

    @rule(name=names, directory=st.sampled_from(["", "sub", "sub/deep"]))
    def listdir(self, name: str, directory: str) -> None:
        place = self.path_of(name, directory)
        answer = self.ask(lambda: os.listdir(place))
        sight = self.seen_late[name]
        if answer.error is None:
            sight.judge_names(answer, directory, answer.value)
            return
        below = [path for path in PATHS if path.startswith(f"{directory}/")]
        assert answer.error.errno in (errno.ENOENT, errno.ESTALE), answer.error  # type: ignore[attr-defined]
        assert all(sight.may_be_absent(answer, path, sight.max_age) for path in below)

    @rule(name=names, path=paths)
    def open_file(self, name: str, path: str) -> None:
        place = self.path_of(name, path)
        answer = self.ask(lambda: os.open(place, os.O_RDONLY))
        sight = self.sights[name]
        if answer.error is not None:
            self.judge_error(answer, sight, path)
            return
        possible = sight.possible(answer, path, sight.max_age)
        versions = {number for number, version in possible if version.length is not None}
        self.files.append((name, path, answer.value, versions))

    @rule(number=st.integers(0, 9), offset=offsets, length=lengths.filter(bool))
    def read_file(self, number: int, offset: int, length: int) -> None:
        """All that is read of an open file is of one version, which it was opened in."""
        if not self.files:
            return
        _, path, file, numbers = self.files[number % len(self.files)]
        answer = self.ask(lambda: os.pread(file, length, offset))
        versions = answer.versions(path)
        if answer.error is None:
            # It may end early: where the kernel has no more, or where a later version ends.
            end = min(version.length or 0 for version in versions[min(numbers) :])
            numbers &= {each for each in numbers if _may_be(versions[each].data(), end, offset, answer.value)}
            assert numbers, (
                f"{path}[{offset}:{offset + length}]: {len(answer.value)} bytes of another version"
            )
        elif answer.error.errno not in GONE:  # type: ignore[attr-defined]
            is_gone = any(version.length is None for version in versions[min(numbers) :])
            expected = (errno.ESTALE, errno.ENOENT) if is_gone else (errno.ESTALE,)
            assert answer.error.errno in expected, answer.error  # type: ignore[attr-defined]

    # ---- beside it

    @rule(name=names, path=places)
    def sync(self, name: str, path: str) -> None:
        assert self.cache is not None
        cache = self.cache
        answer = self.ask(lambda: cache.sync(f"{name}/{path}"))
        if answer.error is None:
            self.sights[name].ask_all(answer, path)
        else:
            assert isinstance(answer.error, NotFound), answer.error

    @rule(name=names, path=places, data=st.booleans(), metadata=st.booleans())
    def free(self, name: str, path: str, data: bool, metadata: bool) -> None:
        assert self.cache is not None
        cache = self.cache
        answer = self.ask(lambda: cache.free(f"{name}/{path}", data=data, metadata=metadata))
        assert answer.error is None, answer.error
        if metadata:
            self.sights[name].forget_all(answer, path)

    @rule(name=names, path=paths)
    def read_by_the_library(self, name: str, path: str) -> None:
        assert self.cache is not None
        cache = self.cache
        answer = self.ask(lambda: bytes(cache.read(f"{name}/{path}")))
        self.judge_read(name, path, answer, 0, 30 * BLOCK)

    # ---- life and death

    @rule(name=names)
    def kill(self, name: str) -> None:
        if name in self.mounts:
            self.mounts.pop(name).kill()

    @rule(name=names)
    def mount_anew(self, name: str) -> None:
        if name in self.mounts:
            for each in [each for each in self.files if each[0] == name]:
                self.files.remove(each)
                with suppress(OSError):
                    os.close(each[2])
            self.mounts.pop(name).close()


def read_range(place: Path, offset: int, length: int) -> bytes:
    """Open a file and read a range of it."""
    with open(place, "rb", buffering=0) as file:
        found = bytearray()
        while len(found) < length and (
            piece := os.pread(file.fileno(), length - len(found), offset + len(found))
        ):
            found += piece
        return bytes(found)


def _may_be(data: bytes, end: int, offset: int, found: bytes) -> bool:
    if not found:
        return offset >= min(len(data), end)
    return data[offset : offset + len(found)] == found
