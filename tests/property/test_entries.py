"""The entries against a dict: whatever is put, listed, forgotten and dropped, in whatever order of times."""

from __future__ import annotations

import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from forebay.config import KIB
from forebay.meta import Entry, Metadata, Recent, rows
from tests.property._entries_model import DatasetModel

IDS = (1, 2)
LONG = "x" * 500
# Directories that share a hash, names that share 384 bytes, and one name for an object and a directory.
DIRECTORIES = ("", "a", "a/b", "c", f"a/{LONG}1")
SAME_HASH = {"c": "a/b"}
NAMES = ("b", "f", "g\udcff", f"{LONG}1", f"{LONG}2")
PATHS = [f"{directory}/{name}".lstrip("/") for directory in DIRECTORIES for name in NAMES] + ["a", "c"]
VERSIONS = ("v1", "v2", "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef-3")

ids = st.sampled_from(IDS)
paths = st.sampled_from(PATHS)
directories = st.sampled_from(DIRECTORIES)
times = st.integers(1, 20)
objects = st.builds(
    Entry, paths, st.integers(0, 2), st.integers(-1, 0), st.sampled_from(VERSIONS), st.just(False), times
)
entries = st.one_of(
    objects, st.builds(Entry, paths, st.just(0), st.just(0), st.just(""), st.just(True), times)
)


class EntriesMachine(RuleBasedStateMachine):
    """Both, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="forebay-entries-", dir="/dev/shm")
        self.metadata = Metadata(self.folder.name)
        self.models = {each: DatasetModel(each, SAME_HASH) for each in IDS}
        self.recent = Recent(64 * KIB)
        self.inodes: dict[tuple[int, str, bool], int] = {}

    def teardown(self) -> None:
        self.metadata.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        for dataset_id in IDS:
            assert self.metadata.entries.changes(dataset_id) == 0

    @rule(dataset_id=ids, wanted=st.lists(entries, max_size=8))
    def put(self, dataset_id: int, wanted: list[Entry]) -> None:
        written = self.metadata.entries.put(dataset_id, wanted)
        assert bool(written) == self.models[dataset_id].put(wanted)

    @rule(dataset_id=ids, path=paths)
    def forget(self, dataset_id: int, path: str) -> None:
        self.metadata.entries.forget(dataset_id, path)
        self.models[dataset_id].forget(path)

    @rule(dataset_id=ids, path=paths, asked_ns=times)
    def note_absent(self, dataset_id: int, path: str, asked_ns: int) -> None:
        self.metadata.entries.note_absent(dataset_id, path, asked_ns)
        self.models[dataset_id].note_absent(path, asked_ns)

    @rule(
        dataset_id=ids,
        directory=directories,
        names=st.sets(st.sampled_from(NAMES)),
        started_ns=times,
        is_cut=st.booleans(),
    )
    def list_directory(
        self, dataset_id: int, directory: str, names: set[str], started_ns: int, is_cut: bool
    ) -> None:
        found = [
            Entry(f"{directory}/{name}".lstrip("/"), 1, 0, "listed", False, started_ns)
            for name in sorted(names)
        ]
        written = self.metadata.entries.put(dataset_id, found)
        assert bool(written) == self.models[dataset_id].put(found)
        if written and not is_cut:
            self.metadata.entries.finish_listing(dataset_id, directory, started_ns)
            self.models[dataset_id].finish_listing(directory, started_ns)

    @rule(dataset_id=ids, root=st.sampled_from(["", "a", "c"]), shown=st.sets(paths), started_ns=times)
    def walk(self, dataset_id: int, root: str, shown: set[str], started_ns: int) -> None:
        below = [path for path in sorted(shown) if not root or path.startswith(f"{root}/")]
        above = {path[:at] for path in below for at in range(len(path)) if path[at] == "/" and at > len(root)}
        found = [Entry(path, 2, 0, "walked", False, started_ns) for path in below]
        found += [Entry(path, 0, 0, "", True, started_ns) for path in sorted(above)]
        written = self.metadata.entries.put(dataset_id, found)
        assert bool(written) == self.models[dataset_id].put(found)
        if written:
            self.metadata.entries.finish_listings(dataset_id, [root, *sorted(above)], started_ns)
            for directory in (root, *sorted(above)):
                self.models[dataset_id].finish_listing(directory, started_ns)

    @rule(dataset_id=ids, dropped=st.lists(paths, max_size=4))
    def drop(self, dataset_id: int, dropped: list[str]) -> None:
        self.metadata.entries.drop(dataset_id, dropped)
        self.models[dataset_id].drop(dropped)

    @rule(dataset_id=ids)
    def forget_absent(self, dataset_id: int) -> None:
        self.metadata.entries.forget_absent(dataset_id)
        self.models[dataset_id].absent_ns.clear()

    @rule(dataset_id=ids)
    def drop_dataset(self, dataset_id: int) -> None:
        self.metadata.entries.drop_dataset(dataset_id)
        self.models[dataset_id] = DatasetModel(dataset_id, SAME_HASH)

    @rule(count=st.integers(0, 5))
    def reclaim(self, count: int) -> None:
        stale = self.metadata.entries.stale(count)
        assert len(stale) == min(count, sum(len(model.stale) for model in self.models.values()))
        self.metadata.entries.reclaimed(stale)
        for each in stale:
            assert self.models[each.dataset_id].stale.pop((each.path, each.version)) == each

    @rule(dataset_id=ids, path=paths)
    def look_up(self, dataset_id: int, path: str) -> None:
        seen = self.metadata.entries.seen(dataset_id, path, directories=True)
        if seen.entry is not None:
            counter = self.metadata.entries.counter(dataset_id)
            self.recent.put(f"{dataset_id}/{path}", seen.entry, counter, seen.changes)

    @rule()
    def reopen(self) -> None:
        self.metadata.close()
        self.metadata = Metadata(self.folder.name)

    @invariant()
    def agree(self) -> None:
        for dataset_id, model in self.models.items():
            self.compare_paths(dataset_id, model)
            self.compare_directories(dataset_id, model)
        stale = self.metadata.entries.stale(1_000)
        assert sorted(stale) == sorted(
            each for model in self.models.values() for each in model.stale.values()
        )
        assert self.metadata.entries.damaged_rows == 0

    def compare_paths(self, dataset_id: int, model: DatasetModel) -> None:
        store = self.metadata.entries
        for path in PATHS:
            known = store.get(dataset_id, path, directories=True)
            assert known == model.get(path)
            assert store.get(dataset_id, path) == model.get(path, directories=False)
            remembered = self.recent.get(f"{dataset_id}/{path}")
            # What is only learnt makes no look-up of before untrue.
            if remembered is not None:
                assert known is not None
                assert remembered.entry[:5] == known[:5]
            absent_ns = None if known is not None else model.absent_ns.get(path)
            assert store.absent_ns(dataset_id, path) == absent_ns

    def compare_directories(self, dataset_id: int, model: DatasetModel) -> None:
        store = self.metadata.entries
        inodes = []
        for directory in DIRECTORIES:
            expected = model.children(directory)
            listed_ns, children = store.listing(dataset_id, directory)
            assert sorted(children, key=lambda entry: (entry.path, entry.is_dir)) == expected
            assert (
                listed_ns
                == store.listed_ns(dataset_id, directory)
                == (model.listed_ns.get(directory) or None)
            )
            names = sorted({entry.path.rpartition("/")[2] for entry in expected})
            assert store.names(dataset_id, directory) == (listed_ns, names)
            for child in children:
                assert store.by_inode(child.inode) == (dataset_id, child)
                inodes.append(child.inode)
        assert len(set(inodes)) == len(inodes)


def test_entries_answer_as_a_dict_does(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = rows.path_hash

    def collide(path: str) -> bytes:
        return plain(SAME_HASH.get(path, path))

    monkeypatch.setattr(rows, "path_hash", collide)
    for module in ("drop", "sweep", "directories"):
        monkeypatch.setattr(f"forebay.meta.{module}._ROWS", 3)
    rows.directory_key.cache_clear()
    try:
        run_state_machine_as_test(
            EntriesMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
        )
    finally:
        rows.directory_key.cache_clear()
