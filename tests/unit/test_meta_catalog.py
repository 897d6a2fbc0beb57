"""The catalog: datasets, rows of other kinds, and the backup beside it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.meta import Catalog, Dataset, Metadata, environment
from forebay.meta.catalog import Kind


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Metadata(tmp_path) as opened:
        yield opened.catalog


def from_backup(tmp_path: Path) -> Metadata:
    """Open what the backup holds, in another folder."""
    folder = tmp_path / "restored"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(tmp_path / "catalog.lmdb.backup", folder / "catalog.lmdb")
    return Metadata(folder)


def test_rows_are_kept_by_kind(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.catalog.put_row("job", "1", {"state": "queued", "count": 3})
        metadata.catalog.put_row("job", "1", {"state": "done"})
        metadata.catalog.put_row("job", "2", {})
        metadata.catalog.put_row("schedule", "1", {"pin": True})
    with Metadata(tmp_path) as metadata:
        assert metadata.catalog.get_row("job", "1") == {"state": "done"}
        assert metadata.catalog.get_row("job", "3") is None
        assert metadata.catalog.rows("job") == {"1": {"state": "done"}, "2": {}}
        assert metadata.catalog.rows("manifest") == {}
        assert metadata.catalog.delete_row("job", "1")
        assert not metadata.catalog.delete_row("job", "1")
        assert metadata.catalog.rows("job") == {"2": {}}
        assert metadata.catalog.datasets() == {}


def test_its_name_is_put_on_disk_when_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a crash of the machine loses commits that were synced into a file without a name."""
    synced: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr(
        environment, "sync_folder", lambda folder: synced.append((folder, os.listdir(folder)))
    )
    for _ in range(2):
        Metadata(tmp_path).close()
    ((folder, names),) = synced
    assert (folder, "catalog.lmdb" in names) == (tmp_path, True)


def test_ids_are_not_given_twice(catalog: Catalog) -> None:
    assert len({catalog.new_id("job") for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("row_id", ["x" * 501, "ü"])
def test_an_id_that_makes_no_key_is_refused(catalog: Catalog, row_id: str) -> None:
    with pytest.raises(ValueError, match="id of a row"):
        catalog.put_row("job", row_id, {})


def test_a_kind_that_there_is_not_is_refused(catalog: Catalog) -> None:
    kind: Kind = "jobs"  # type: ignore[assignment]
    for call in (catalog.new_id, catalog.rows):
        with pytest.raises(ValueError, match="kinds job, policy, manifest, schedule"):
            call(kind)


def test_a_value_that_json_does_not_hold_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="JSON"):
        catalog.put_row("job", "1", {"rate": float("nan")})
    assert catalog.rows("job") == {}


def test_rows_are_changed_as_one_commit(tmp_path: Path, catalog: Catalog) -> None:
    catalog.put_row("job", "1", {"count": 1})
    before = catalog.last_commit()
    with catalog.changing() as rows:
        assert rows.get("job", "1") == {"count": 1}
        assert rows.get("job", "2") is None
        rows.put("job", "2", {"count": 2})
        rows.put("schedule", "1", {})
        assert rows.all("job") == {"1": {"count": 1}, "2": {"count": 2}}
        assert rows.delete("job", "1")
        assert not rows.delete("job", "1")
    assert catalog.rows("job") == {"2": {"count": 2}}
    assert catalog.rows("schedule") == {"1": {}}
    assert catalog.last_commit() == before + 1


def test_an_exception_undoes_what_was_changed(catalog: Catalog) -> None:
    catalog.put_row("job", "1", {})
    with suppress(LookupError), catalog.changing() as rows:
        rows.delete("job", "1")
        rows.put("job", "2", {})
        raise LookupError
    assert catalog.rows("job") == {"1": {}}


def test_rows_that_are_looked_at_and_changed_are_nobody_elses_meanwhile(
    tmp_path: Path, catalog: Catalog
) -> None:
    catalog.put_row("job", "1", {"count": 0})
    pid = os.fork()
    for _ in range(100):
        with catalog.changing() as rows:
            row = rows.get("job", "1")
            assert row is not None
            rows.put("job", "1", {"count": row["count"] + 1})
    if pid == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert catalog.get_row("job", "1") == {"count": 200}


def test_rows_of_other_kinds_leave_the_datasets_the_same_object(catalog: Catalog) -> None:
    catalog.attach(Dataset("a", "file:///a"))
    before = catalog.datasets()
    catalog.put_row("job", "1", {})
    assert catalog.datasets() is before


def test_what_a_later_version_added_to_a_dataset_is_left_out(catalog: Catalog) -> None:
    attached = catalog.attach(Dataset("a", "file:///a", negative_ttl=2.5))
    with catalog._environment.writing() as transaction:
        stored = transaction.get(b"dataset/a")
        transaction.put(b"dataset/a", stored.replace(b"{", b'{"added": 1, ', 1))
    assert catalog.datasets() == {"a": attached}


def test_the_backup_follows_the_datasets(tmp_path: Path, catalog: Catalog) -> None:
    assert not (tmp_path / "catalog.lmdb.backup").exists()
    first = catalog.attach(Dataset("a", "file:///a"))
    catalog.put_row("job", "1", {"state": "queued"})
    with from_backup(tmp_path) as restored:
        assert restored.catalog.datasets() == {"a": first}
        assert restored.catalog.attach(Dataset("c", "file:///c")).id > first.id
    second = catalog.attach(Dataset("b", "file:///b"))
    with from_backup(tmp_path) as restored:
        assert restored.catalog.datasets() == {"a": first, "b": second}
        assert restored.catalog.rows("job") == {"1": {"state": "queued"}}
    catalog.detach("a")
    with from_backup(tmp_path) as restored:
        assert restored.catalog.datasets() == {"b": second}
    assert sorted(path.name for path in tmp_path.glob("catalog*")) == ["catalog.lmdb", "catalog.lmdb.backup"]
    for path in tmp_path.glob("catalog*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_backup_on_purpose(tmp_path: Path, catalog: Catalog) -> None:
    catalog.put_row("schedule", "1", {})
    catalog.back_up()
    with from_backup(tmp_path) as restored:
        assert restored.catalog.rows("schedule") == {"1": {}}


def test_the_backup_has_the_rights_of_the_catalog(tmp_path: Path) -> None:
    with Metadata(tmp_path / "shared", shared_group=os.getgid()) as metadata:
        metadata.catalog.attach(Dataset("a", "file:///a"))
        assert (tmp_path / "shared" / "catalog.lmdb.backup").stat().st_mode & 0o777 == 0o660


def test_what_a_killed_process_left_of_a_backup_is_used_again(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "catalog.lmdb.backup-new").write_bytes(os.urandom(100_000))
    catalog.attach(Dataset("a", "file:///a"))
    with from_backup(tmp_path) as restored:
        assert list(restored.catalog.datasets()) == ["a"]
    assert not (tmp_path / "catalog.lmdb.backup-new").exists()


@pytest.mark.parametrize("obstacle", ["folder", "busy"])
def test_a_backup_that_cannot_be_written_is_no_error(
    tmp_path: Path,
    catalog: Catalog,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
) -> None:
    monkeypatch.setattr("forebay.meta.backup._PATIENCE_S", 0.0)
    new = tmp_path / "catalog.lmdb.backup-new"
    if obstacle == "folder":
        new.mkdir()
    else:
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    catalog.attach(Dataset("a", "file:///a"))
    assert list(catalog.datasets()) == ["a"]
    assert [record for record in caplog.records if "backup: not written" in record.getMessage()]


ATTACHER = """
import sys
from forebay.meta import Dataset, Metadata
with Metadata(sys.argv[1]) as metadata:
    for number in range(10):
        metadata.catalog.attach(Dataset(f"{sys.argv[2]}{number}", "file:///x"))
"""


def test_processes_that_attach_at_once_leave_a_whole_backup(tmp_path: Path) -> None:
    attachers = [subprocess.Popen([sys.executable, "-c", ATTACHER, str(tmp_path), name]) for name in "abc"]
    assert [attacher.wait(60) for attacher in attachers] == [0, 0, 0]
    with Metadata(tmp_path) as metadata, from_backup(tmp_path) as restored:
        assert len(metadata.catalog.datasets()) == 30
        assert restored.catalog.datasets() == metadata.catalog.datasets()
        assert len({dataset.id for dataset in metadata.catalog.datasets().values()}) == 30


def test_ids_that_are_used_up_are_an_error(catalog: Catalog) -> None:
    with catalog._environment.writing() as transaction:
        transaction.put(b"next-id", str(2**32 - 1).encode())
    with pytest.raises(ConfigError, match="used up"):
        catalog.attach(Dataset("a", "file:///a"))
    with catalog._environment.writing() as transaction:
        transaction.put(b"next-id", b"text")
    with pytest.raises(ConfigError, match="next-id"):
        catalog.attach(Dataset("a", "file:///a"))
