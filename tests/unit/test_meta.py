"""The catalog and the entries: one process, several, forks, kills, PID namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.errors import Closed, ConfigError, NotAttached
from forebay.meta import Dataset, Entry, Metadata

# Among them bytes that are not UTF-8, as Python decodes file names.
CHARACTERS = st.one_of(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), st.sampled_from(["\udcff", "\udc80"])
)
NAMES = st.text(CHARACTERS, min_size=1, max_size=300)


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    with Metadata(tmp_path / "meta") as opened:
        yield opened


def entry(path: str, checked_ns: int = 1, *, is_dir: bool = False, version: str = "v") -> Entry:
    return Entry(path, 0 if is_dir else 7, -5, "" if is_dir else version, is_dir, checked_ns)


def test_datasets_are_kept_with_their_ids(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        first = metadata.catalog.attach(Dataset("a", "file:///a", max_age=None, options={"region": "eu"}))
        second = metadata.catalog.attach(Dataset("b", "file:///b", retention="lru"))
        assert (first.id, second.id) == (1, 2)
    with Metadata(tmp_path) as metadata:
        assert metadata.catalog.datasets() == {"a": first, "b": second}
        assert metadata.catalog.detach("a") == first
        assert metadata.catalog.attach(Dataset("a", "file:///a")).id == 3
        with pytest.raises(NotAttached, match="'c'"):
            metadata.catalog.detach("c")


def test_the_same_datasets_are_the_same_object(metadata: Metadata) -> None:
    metadata.catalog.attach(Dataset("a", "file:///a"))
    before = metadata.catalog.datasets()
    assert metadata.catalog.datasets() is before
    metadata.catalog.attach(Dataset("b", "file:///b"))
    assert metadata.catalog.datasets() is not before


def test_a_name_stands_for_one_uri(metadata: Metadata) -> None:
    dataset = metadata.catalog.attach(Dataset("a", "file:///a"))
    assert metadata.catalog.attach(replace(dataset, id=0, max_age=5.0)) == replace(dataset, max_age=5.0)
    with pytest.raises(ConfigError, match="attached to file:///a"):
        metadata.catalog.attach(Dataset("a", "file:///b"))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(NAMES, max_size=8),
    directory=st.sampled_from(["", "d", "d/e" * 200]),
    version=st.text(CHARACTERS, max_size=80),
)
def test_entries_come_back_as_they_were(
    metadata: Metadata, names: set[str], directory: str, version: str
) -> None:
    prefix = f"{directory}/" if directory else ""
    entries = [entry(prefix + name, version=version) for name in names]
    entries += [entry(prefix + name, is_dir=True) for name in names]
    assert metadata.entries.put(1, entries)
    for each in entries:
        found = metadata.entries.get(1, each.path, directories=True)
        assert found == (each._replace(is_dir=False, size=7, version=version) if each.is_dir else each)
    children = metadata.entries.children(1, directory)
    assert sorted(children, key=repr) == sorted(entries, key=repr)
    assert metadata.entries.get(2, prefix + "a") is None
    metadata.entries.drop_dataset(1)
    assert metadata.entries.children(1, directory) == []


def test_long_names_that_differ_at_the_end(metadata: Metadata) -> None:
    names = ["x" * 900 + end for end in "ab"]
    metadata.entries.put(1, [entry(f"d/{name}", version=name[-1]) for name in names])
    for name in names:
        found = metadata.entries.get(1, f"d/{name}")
        assert found is not None
        assert (found.path, found.version) == (f"d/{name}", name[-1])
    assert {child.path for child in metadata.entries.children(1, "d")} == {f"d/{name}" for name in names}


def test_an_object_comes_before_a_directory_of_its_name(metadata: Metadata) -> None:
    metadata.entries.put(1, [entry("a", is_dir=True)])
    assert metadata.entries.get(1, "a") is None
    assert metadata.entries.get(1, "a", directories=True) == entry("a", is_dir=True)
    metadata.entries.put(1, [entry("a")])
    assert metadata.entries.get(1, "a", directories=True) == entry("a")
    metadata.entries.forget(1, "a")
    assert metadata.entries.get(1, "a", directories=True) is None


def test_older_knowledge_does_not_replace_newer(metadata: Metadata) -> None:
    metadata.entries.put(1, [entry("a", 10, version="new")])
    metadata.entries.put(1, [entry("a", 9, version="old")])
    assert metadata.entries.get(1, "a") == entry("a", 10, version="new")


def test_a_finished_listing_drops_what_it_did_not_show(metadata: Metadata) -> None:
    entries = metadata.entries
    entries.put(
        1, [entry("d/gone", 1), entry("d/kept", 1), entry("d/gone", 1, is_dir=True), entry("e/other", 1)]
    )
    assert entries.listed_ns(1, "d") is None
    entries.put(1, [entry("d/kept", 5), entry("d/new", 5)])
    # Found by somebody else while the listing went on.
    entries.put(1, [entry("d/seen", 6)])
    entries.finish_listing(1, "d", 5)
    assert entries.listed_ns(1, "d") == 5
    assert [child.path for child in entries.children(1, "d")] == ["d/kept", "d/new", "d/seen"]
    assert entries.get(1, "e/other") == entry("e/other", 1)
    entries.finish_listing(1, "d", 4)
    assert entries.listed_ns(1, "d") == 5


def test_dropping_a_dataset_leaves_the_next(metadata: Metadata) -> None:
    for dataset_id in (1, 2):
        metadata.entries.put(dataset_id, [entry(f"d/{number}") for number in range(25_000)])
        metadata.entries.finish_listing(dataset_id, "d", 1)
    metadata.entries.drop_dataset(1)
    assert metadata.entries.children(1, "d") == []
    assert metadata.entries.listed_ns(1, "d") is None
    assert len(metadata.entries.children(2, "d")) == 25_000


def test_a_write_that_fails_is_no_error(metadata: Metadata, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object, is_hasty: bool) -> None:
        raise lmdb.MapFullError("full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(metadata.entries._environment), "writing", fail)
        assert not metadata.entries.put(1, [entry("a")])
        metadata.entries.drop_dataset(1)
    assert [record.getMessage() for record in caplog.records] == [
        "metadata is not kept, reads go on without: full"
    ]
    assert metadata.entries.put(1, [entry("a")])


def test_entries_are_not_remembered_while_a_reader_goes_on(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.meta.entries._PATIENCE_S", 0.02)
    entries = metadata.entries
    assert entries.put(1, [entry("a")])
    with entries._environment.reading():
        assert entries.put(1, [entry("b")])
        assert not any(entries.put(1, [entry("c")]) for _ in range(2))
        known = entries.get(1, "b")
    assert known is not None
    assert known.path == "b"
    assert entries.get(1, "c") is None
    assert entries.put(1, [entry("c")])


def test_read_only_reads(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.catalog.attach(Dataset("a", "file:///a"))
        metadata.entries.put(1, [entry("a")])
    with Metadata(tmp_path, read_only=True) as metadata:
        assert list(metadata.catalog.datasets()) == ["a"]
        assert metadata.entries.get(1, "a") == entry("a")
        assert not metadata.entries.put(1, [entry("b")])


def test_a_folder_is_private_unless_it_is_shared(tmp_path: Path) -> None:
    with Metadata(tmp_path / "own"), Metadata(tmp_path / "shared", shared_group=os.getgid()):
        for path in (tmp_path / "own").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "own").stat().st_mode & 0o7777 == 0o700
        assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o2770
        for path in (tmp_path / "shared").glob("*.lmdb*"):
            assert path.stat().st_mode & 0o777 == 0o660


def test_damage_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with Metadata(tmp_path):
        pass
    (tmp_path / "catalog.lmdb").write_bytes(os.urandom(16_384))
    with pytest.raises(ConfigError, match=r"catalog\.lmdb: cannot be opened"):
        Metadata(tmp_path)


def test_one_process_may_open_it_twice(tmp_path: Path) -> None:
    with Metadata(tmp_path) as first:
        second = Metadata(tmp_path)
        second.catalog.attach(Dataset("a", "file:///a"))
        assert list(first.catalog.datasets()) == ["a"]
        second.close()
        second.close()
        assert list(first.catalog.datasets()) == ["a"]
        with pytest.raises(Closed):
            second.catalog.datasets()


def be_patient(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it wait for who writes and gets no processor: what is not written for that is no fault."""
    monkeypatch.setattr(metadata.entries._group, "_patience_s", 60.0)


def in_child(action: object) -> int:
    """Run a function in a forked child and return its exit code: 0 if it raised nothing."""
    assert callable(action)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_both_sides_of_a_fork_go_on(metadata: Metadata) -> None:
    metadata.entries.put(1, [entry("before")])

    def child() -> None:
        assert metadata.entries.get(1, "before") == entry("before")
        assert metadata.entries.put(1, [entry("child")])
        metadata.close()

    assert in_child(child) == 0
    assert metadata.entries.get(1, "child") == entry("child")
    assert metadata.entries.put(1, [entry("parent")])


def test_forks_among_transactions(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads read and write all the while: a fork waits for them, and they for it."""
    be_patient(metadata, monkeypatch)
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        count = 0
        try:
            while not stop.is_set():
                count += 1
                assert metadata.entries.put(1, [entry(f"{number}", count)])
                assert metadata.entries.get(1, f"{number}") == entry(f"{number}", count)
        except BaseException as error:  # noqa: BLE001  (shown below, whatever it is)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    codes = [in_child(lambda: metadata.entries.put(2, [entry("child")])) for _ in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert codes == [0] * 20
    assert metadata.entries.get(2, "child") == entry("child")


WRITER = """
import sys
from forebay.meta import Entry, Metadata
metadata = Metadata(sys.argv[1])
print("open", flush=True)
number = 0
while True:
    number += 1
    metadata.entries.put(1, [Entry(f"d/{sys.argv[2]}-{number % 50}", number, 0, "v", False, number)])
    metadata.entries.children(1, "d")
"""


def test_killed_writers_leave_it_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Metadata(tmp_path) as metadata:
        be_patient(metadata, monkeypatch)
        for round_number in range(5):
            writers = [
                subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE)
                for name in "ab"
            ]
            for writer in writers:
                with writer:
                    assert writer.stdout is not None
                    assert writer.stdout.readline() == b"open\n"
                    assert metadata.entries.put(1, [entry("own", round_number)])
                    writer.send_signal(signal.SIGKILL)
        assert metadata.entries.get(1, "own") == entry("own", 4)
        children = metadata.entries.children(1, "d")
        assert all(child.size == child.checked_ns for child in children)


OPENER = """
import sys
from forebay.meta import Entry, Metadata
with Metadata(sys.argv[1]) as metadata:
    assert metadata.entries.put(1, [Entry("inside", 7, -5, "v", False, 1)])
    print(metadata.entries.get(1, "outside").path, flush=True)
"""


def test_a_second_pid_namespace_reads_and_writes_beside_the_first(tmp_path: Path) -> None:
    # A user namespace where we are not root, so that none is needed.
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"] + (
        [] if os.geteuid() == 0 else ["--map-root-user"]
    )
    with Metadata(tmp_path) as metadata:
        assert metadata.entries.put(1, [entry("outside")])
        command = [*unshare, sys.executable, "-c", OPENER, str(tmp_path)]
        inside = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert inside.stdout == "outside\n", inside.stderr
        assert metadata.entries.get(1, "inside") == entry("inside")


def test_an_empty_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "catalog.lmdb").touch()
    with pytest.raises(ConfigError, match=r"catalog\.lmdb: cannot be opened: the file is empty"):
        Metadata(tmp_path)
    assert not list(tmp_path.glob("*.new"))
