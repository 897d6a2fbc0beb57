"""Which manifest a dataset shows: one commit a change, and nothing older is found once it is made."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from forebay.errors import ConfigError, ManifestNotFound, NotAttached
from forebay.meta import Dataset, ManifestRecord, Metadata
from forebay.meta.write import Write


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    with Metadata(tmp_path / "meta") as opened:
        opened.catalog.attach(Dataset("d", "file:///d"))
        yield opened


def add(metadata: Metadata, version: str, *, use: bool = False) -> ManifestRecord:
    dataset = metadata.versions.dataset("d")
    number = metadata.versions.new_number()
    record = ManifestRecord(version, dataset.id, number, number, 10, 0.5, "a test")
    metadata.versions.add(dataset, record, use=use)
    return record


def shown(metadata: Metadata) -> tuple[str | None, str | None]:
    dataset = metadata.versions.dataset("d")
    return dataset.manifest, dataset.manifest_before


def test_rows_and_pointer_are_kept(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.catalog.attach(Dataset("d", "file:///d", manifest_only=True))
        records = {version: add(metadata, version) for version in ("v1", "v2")}
        metadata.versions.use("d", "v2")
    with Metadata(tmp_path) as metadata:
        assert metadata.versions.of(1) == records
        assert metadata.versions.find("d", "v1") == records["v1"]
        dataset = metadata.catalog.datasets()["d"]
        assert (dataset.manifest, dataset.manifest_only) == ("v2", True)
        assert metadata.versions.new_number() == 3
        # Attaching it again changes the settings and nothing else.
        again = metadata.catalog.attach(Dataset("d", "file:///d", max_age=5.0))
        assert again == replace(dataset, max_age=5.0, manifest_only=False)


def test_switching_and_going_back(metadata: Metadata) -> None:
    versions = metadata.versions
    with pytest.raises(ConfigError, match="'d' has no earlier manifest"):
        versions.roll_back("d")
    add(metadata, "v1")
    assert shown(metadata) == (None, None)
    versions.use("d", "v1")
    assert shown(metadata) == ("v1", None)
    add(metadata, "v2", use=True)
    assert shown(metadata) == ("v2", "v1")
    versions.use("d", "v2")
    assert shown(metadata) == ("v2", "v1")
    assert versions.roll_back("d") == "v1"
    assert shown(metadata) == ("v1", "v2")
    assert versions.roll_back("d") == "v2"
    versions.use("d", None)
    assert shown(metadata) == (None, "v2")
    assert versions.roll_back("d") == "v2"
    with pytest.raises(ConfigError, match="no earlier"):
        versions.roll_back("d")


def test_what_is_refused(metadata: Metadata) -> None:
    versions = metadata.versions
    add(metadata, "v1", use=True)
    add(metadata, "2027-01")
    for act in (lambda: versions.use("d", "2027-02"), lambda: versions.delete("d", "2027-02")):
        with pytest.raises(ManifestNotFound, match=r"no manifest '2027-02' \(did you mean '2027-01'\?\)"):
            act()
    with pytest.raises(NotAttached, match="no dataset 'e'"):
        versions.use("e", "v1")
    with pytest.raises(ConfigError, match="has a manifest 'v1' already"):
        add(metadata, "v1")
    with pytest.raises(ConfigError, match="'v1' of dataset 'd' is in use"):
        versions.delete("d", "v1")
    assert shown(metadata) == ("v1", None)


def test_deleting(metadata: Metadata) -> None:
    versions = metadata.versions
    add(metadata, "v1", use=True)
    add(metadata, "v2", use=True)
    deleted = versions.delete("d", "v1")
    # There is nothing to go back to any more, and the name is free.
    assert shown(metadata) == ("v2", None)
    assert list(versions.of(1)) == ["v2"]
    assert versions.deleted() == [deleted]
    again = add(metadata, "v1")
    assert again.file_name in versions.file_names()
    assert deleted.file_name in versions.file_names()
    versions.remove(deleted)
    assert versions.deleted() == []
    assert versions.of(1)["v1"] == again


def test_detaching_takes_the_manifests_along(metadata: Metadata) -> None:
    dataset = metadata.versions.dataset("d")
    record = add(metadata, "v1", use=True)
    metadata.catalog.detach("d")
    assert metadata.versions.of(dataset.id) == {}
    assert metadata.versions.file_names() == set()
    metadata.catalog.attach(Dataset("d", "file:///d"))
    assert shown(metadata) == (None, None)
    with pytest.raises(NotAttached, match="detached since"):
        metadata.versions.add(dataset, record, use=True)


def test_contents_are_of_one_moment_and_the_same_object_while_nothing_changes(metadata: Metadata) -> None:
    catalog = metadata.catalog
    before = catalog.contents()
    catalog.put_row("job", "1", {})
    assert catalog.contents() is before
    add(metadata, "v1")
    after = catalog.contents()
    assert after is not before
    assert after.datasets is before.datasets
    assert list(after.manifests[1]) == ["v1"]


def test_the_backup_knows_the_manifests(metadata: Metadata, tmp_path: Path) -> None:
    add(metadata, "v1")
    for act in (
        lambda: metadata.versions.use("d", "v1"),
        lambda: add(metadata, "v2", use=True),
        lambda: metadata.versions.roll_back("d"),
        lambda: metadata.versions.delete("d", "v2"),
    ):
        act()
        (tmp_path / "restored").mkdir(exist_ok=True)
        backup = (tmp_path / "meta/catalog.lmdb.backup").read_bytes()
        (tmp_path / "restored/catalog.lmdb").write_bytes(backup)
        with Metadata(tmp_path / "restored") as restored:
            assert restored.catalog.contents() == metadata.catalog.contents()


def test_what_was_looked_up_before_a_switch_is_not_found_after_it(metadata: Metadata) -> None:
    entries = metadata.entries
    add(metadata, "v1")
    number = entries.changes(1)
    assert number == entries.counter(1).load()
    metadata.versions.use("d", "v1")
    assert entries.counter(1).load() != number
    number = entries.changes(1)
    assert number == entries.counter(1).load()
    # A switch that is refused costs the look-ups that are remembered, and no more.
    with pytest.raises(ManifestNotFound):
        metadata.versions.use("d", "v7")
    assert entries.changes(1) == entries.counter(1).load()


def test_a_switcher_that_dies_leaves_nothing_older_to_be_found(tmp_path: Path) -> None:
    with Metadata(tmp_path / "meta") as metadata:
        metadata.catalog.attach(Dataset("d", "file:///d"))
        add(metadata, "v1")
        entries = metadata.entries
        before = entries.changes(1)
        child = os.fork()
        if child == 0:
            with entries.announcing(1):
                with metadata.catalog.changing() as change:
                    change.put_dataset(replace(change.dataset("d"), manifest="v1"))
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        # The switch is made. What was looked up before it is found by nobody, nor is anything remembered.
        assert shown(metadata)[0] == "v1"
        assert entries.counter(1).load() != before
        assert entries.changes(1) == before
        entries.settle(1)
        assert entries.changes(1) == entries.counter(1).load() > before


def test_a_switch_that_cannot_be_announced_is_not_made(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(metadata, "v1")

    def fail(write: Write) -> None:
        raise lmdb.MapFullError("as if the file could not grow")

    monkeypatch.setattr(Write, "finish", fail)
    with pytest.raises(OSError, match="metadata could not be written"):
        metadata.versions.use("d", "v1")
    monkeypatch.undo()
    assert shown(metadata) == (None, None)
    metadata.versions.use("d", "v1")
    assert shown(metadata) == ("v1", None)


def test_whoever_may_only_read_changes_nothing(tmp_path: Path) -> None:
    with Metadata(tmp_path / "meta") as metadata:
        metadata.catalog.attach(Dataset("d", "file:///d"))
        add(metadata, "v1", use=True)
    with Metadata(tmp_path / "meta", read_only=True) as reader:
        assert list(reader.versions.of(1)) == ["v1"]
        for act in (
            lambda: reader.versions.use("d", None),
            lambda: reader.versions.delete("d", "v1"),
            lambda: reader.versions.new_number(),
        ):
            with pytest.raises(PermissionError, match="read only"):
                act()


def test_a_damaged_row_is_an_error_that_names_it(metadata: Metadata) -> None:
    add(metadata, "v1")
    with metadata.catalog._environment.writing() as transaction:
        transaction.put(b"manifest/1/1", b'{"version": "v1"}')
    with pytest.raises(ConfigError, match="damaged: the row b'manifest/1/1'"):
        metadata.catalog.contents()
