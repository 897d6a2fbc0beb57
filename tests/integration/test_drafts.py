"""Drafts: what is written in any order reads as it was written, and is at the source after a commit."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache, Draft, Nodes
from forebay.config import KIB, MIB, Tier
from forebay.errors import Closed, Stale

OLD = os.urandom(2 * MIB + 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "short").write_bytes(OLD[:1_000])
    (folder / "long").write_bytes(OLD)
    return folder


@pytest.fixture
def cache(tmp_path: Path, memory_path: Path, folder: Path) -> Iterator[Cache]:
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB, staging_max=16 * MIB) as cache:
        cache.attach("d", folder.as_uri(), writable=True)
        yield cache


@pytest.fixture
def nodes(cache: Cache) -> Nodes:
    return cache.nodes("d")


def begin(nodes: Nodes, name: str) -> Draft:
    """Begin to write an object that is there."""
    return nodes.writer().draft(name, nodes.open(nodes.node_at(name)))


@pytest.mark.parametrize("name", ["short", "long", "new"])
def test_in_any_order(nodes: Nodes, folder: Path, name: str) -> None:
    place = folder / name
    expected = bytearray(place.read_bytes() if place.exists() else b"")
    draft = nodes.writer().draft(name, None) if name == "new" else begin(nodes, name)
    chance = random.Random(name)
    for _ in range(300):
        offset, length = chance.randrange(3 * MIB), chance.randrange(100 * KIB)
        match chance.randrange(6):
            case 0 | 1:
                data = chance.randbytes(length)
                if not draft.write_at_once(offset, data):
                    draft.write(offset, data)
                expected.extend(bytes(max(offset - len(expected), 0)))
                expected[offset : offset + length] = data
            case 2:
                # Short ones stay in memory.
                size = chance.choice([0, 10, 900 * KIB, offset])
                draft.truncate(size)
                del expected[size:]
                expected.extend(bytes(size - len(expected)))
            case 3:
                entry = draft.commit()
                assert place.read_bytes() == expected
                assert entry is not None
                assert entry.size == len(expected)
            case _:
                assert draft.size == len(expected)
                assert draft.read(offset, length) == expected[offset : offset + length]
    draft.commit()
    assert place.read_bytes() == expected
    draft.discard()


def test_what_is_not_changed_is_neither_copied_nor_written(nodes: Nodes, folder: Path, cache: Cache) -> None:
    draft = begin(nodes, "long")
    version = nodes.node_at("long").entry.version
    draft.truncate(len(OLD))
    assert draft.commit() == nodes.node_at("long").entry
    assert (draft.is_dirty, nodes.node_at("long").entry.version) == (False, version)
    # Emptied, it needs nothing of what was there.
    draft.truncate(0)
    draft.write(0, b"new")
    assert cache.accounts()["d"].bytes["source"] == 0
    draft.commit()
    assert (folder / "long").read_bytes() == b"new"
    draft.discard()


def test_what_was_discarded_is_not_written(nodes: Nodes, folder: Path, cache: Cache) -> None:
    draft = begin(nodes, "long")
    draft.write(0, b"new")
    assert cache.status()["staging"]["bytes"] > 0
    draft.discard()
    assert cache.status()["staging"]["bytes"] == 0
    assert (folder / "long").read_bytes() == OLD


def test_dropped_it_is_read_and_written_on(nodes: Nodes, folder: Path) -> None:
    draft = begin(nodes, "long")
    draft.fetch()
    nodes.writer().delete("long")
    draft.drop()
    draft.write(0, b"new")
    assert draft.read(0, 3 * MIB) == b"new" + OLD[3:]
    draft.commit()
    assert not (folder / "long").exists()
    draft.discard()


def test_another_version_is_not_mixed_in(nodes: Nodes, folder: Path, cache: Cache) -> None:
    draft = begin(nodes, "long")
    cache.put("d/long", bytes(len(OLD)))
    with pytest.raises(Stale):
        draft.write(0, b"new")
    assert draft.commit() is not None
    assert (folder / "long").read_bytes() == bytes(len(OLD))
    draft.discard()


def test_what_cannot_be_staged_is_never_written(nodes: Nodes, folder: Path, cache: Cache) -> None:
    draft = begin(nodes, "short")
    draft.write(0, b"new")
    with pytest.raises(OSError, match="staging_max") as caught:
        draft.write(17 * MIB, b"far")
    assert caught.value.errno == errno.EDQUOT
    with pytest.raises(OSError, match="staging_max"):
        draft.write(0, b"x")
    with pytest.raises(OSError, match="staging_max"):
        draft.commit()
    assert (folder / "short").read_bytes() == OLD[:1_000]
    # Emptied, it lacks nothing.
    draft.truncate(0)
    draft.write(0, b"x")
    draft.commit()
    assert (folder / "short").read_bytes() == b"x"
    draft.discard()
    assert cache.status()["staging"]["bytes"] == 0


def test_created_exclusively(nodes: Nodes, folder: Path, cache: Cache) -> None:
    draft = nodes.writer().draft("new", None, exclusive=True)
    draft.write(0, b"mine")
    cache.put("d/new", b"another's")
    with pytest.raises(FileExistsError):
        draft.commit()
    assert (folder / "new").read_bytes() == b"another's"
    draft.discard()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [10, 2 * MIB])
def test_what_was_discarded_is_neither_read_nor_written(nodes: Nodes, cache: Cache, size: int) -> None:
    draft = nodes.writer().draft("new", None)
    draft.write(0, bytes(size))
    draft.discard()
    for act in (
        lambda: draft.read(0, 10),
        lambda: draft.write(0, b"x"),
        lambda: draft.truncate(0),
        lambda: draft.truncate(5),
    ):
        with pytest.raises(Closed, match="new: what was written of it was given up"):
            act()
    assert not draft.write_at_once(0, b"x")
    assert cache.status()["staging"]["bytes"] == 0


def test_many_at_a_time_are_staged_where_memory_ends(nodes: Nodes, folder: Path, cache: Cache) -> None:
    writer = nodes.writer()
    drafts = [writer.draft(f"new{number}", None) for number in range(66)]
    for draft in drafts:
        draft.write(0, bytes(MIB - 1))
    assert 0 < cache.status()["staging"]["bytes"] <= 16 * MIB
    for draft in drafts:
        draft.commit()
        draft.discard()
    assert len(list(folder.glob("new*"))) == 66
