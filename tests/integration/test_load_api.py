"""Loads through the cache: what is brought, skipped, refused and told of, and what is known afterwards."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay import errors
from forebay.cache import Cache
from forebay.cache.loads.load import LoadJob, LoadResult
from forebay.config import KIB, MIB, Tier
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import wait_until

BLOCK = 64 * KIB
OpenCache = Callable[..., Cache]

SIZES = {
    "empty": 0,
    "one": 1,
    "train/a.jpg": BLOCK - 1,
    "train/b.jpg": BLOCK,
    "train/sub/c.jpg": BLOCK + 1,
    "train/sub/c.txt": 10,
    "big": 9 * MIB + 17,
}
TOTAL = sum(SIZES.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name, size in SIZES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(size))
    return root


@pytest.fixture
def cache(open_cache: OpenCache, folder: Path) -> Cache:
    """A cache with the folder attached as ``d``, taken never to change."""
    cache = open_cache()
    cache.attach("d", folder.as_uri(), max_age=None)
    return cache


def counters(cache: Cache) -> dict[str, int]:
    return dict(cache.status()["counters"])


def ended(job: LoadJob) -> LoadResult:
    return job.wait(60)


def counts(result: LoadResult) -> tuple[int, int, int, int]:
    figures = result.progress
    return (figures.files_done, figures.files_skipped, figures.files_failed, figures.files_not_admitted)


def assert_cached(cache: Cache, folder: Path, names: list[str]) -> None:
    """Read the files, right and without asking the under storage for anything."""
    before = counters(cache)["source_requests"]
    for name in names:
        with cache.read(f"d/{name}") as view:
            assert bytes(view) == (folder / name).read_bytes()
    assert counters(cache)["source_requests"] == before


def test_a_load_brings_everything_and_a_second_one_asks_for_nothing(cache: Cache, folder: Path) -> None:
    result = ended(cache.load("d"))
    assert (result.ok, result.state, result.reason) == (True, "done", "")
    assert counts(result) == (6, 1, 0, 0)
    figures = result.progress
    assert (figures.files_total, figures.bytes_total, figures.bytes_done) == (7, TOTAL, TOTAL)
    assert counters(cache)["load_bytes"] == TOTAL
    assert_cached(cache, folder, [name for name in SIZES if name != "empty"])
    before = counters(cache)
    again = ended(cache.load("d"))
    assert counts(again) == (0, 7, 0, 0)
    assert again.progress.bytes_skipped == TOTAL
    assert counters(cache)["source_requests"] == before["source_requests"]


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("d/train", ["train/a.jpg", "train/b.jpg", "train/sub/c.jpg", "train/sub/c.txt"]),
        ("d/train/sub/", ["train/sub/c.jpg", "train/sub/c.txt"]),
        ("d/big", ["big"]),
    ],
)
def test_a_part_of_a_dataset(cache: Cache, folder: Path, target: str, names: list[str]) -> None:
    result = ended(cache.load(target))
    assert counts(result) == (len(names), 0, 0, 0)
    assert_cached(cache, folder, names)
    assert cache.status()["committed_bytes"] == sum(SIZES[name] for name in names)


@pytest.mark.parametrize(
    ("target", "glob", "names"),
    [
        ("d", "**/*.jpg", ["train/a.jpg", "train/b.jpg", "train/sub/c.jpg"]),
        ("d", "*", ["one", "big", "empty"]),
        ("d", "train/*", ["train/a.jpg", "train/b.jpg"]),
        ("d/train", "sub/**", ["train/sub/c.jpg", "train/sub/c.txt"]),
        ("d", "none/**", []),
    ],
)
def test_a_glob(cache: Cache, folder: Path, target: str, glob: str, names: list[str]) -> None:
    result = ended(cache.load(target, glob=glob))
    assert result.ok
    assert result.progress.files_total == len(names)
    assert cache.status()["committed_bytes"] == sum(SIZES[name] for name in names)


LINES = ["one", "# a comment", "", "train/b.jpg", "../secret", "/etc/passwd", "none", "train", "one"]
BAD = {
    5: "contains the part '..'",
    6: "is absolute",
    7: "No such file or directory",
    8: "is a directory",
}


def every_source(tmp_path: Path) -> Iterator[tuple[str, object]]:
    text = "\n".join(LINES) + "\n"
    path = tmp_path / "list"
    path.write_text(text)
    yield "path", path
    yield "text", str(path)
    yield "url", path.as_uri()
    yield "stream", io.StringIO(text)
    yield "bytes", io.BytesIO(text.encode())


@pytest.mark.parametrize("source", ["path", "text", "url", "stream", "bytes"])
def test_a_file_list_whose_bad_lines_are_told_of(
    cache: Cache, folder: Path, tmp_path: Path, source: str
) -> None:
    job = cache.load("d", files=dict(every_source(tmp_path))[source])  # type: ignore[arg-type]  # by name
    result = ended(job)
    assert (result.ok, result.state) == (False, "incomplete")
    assert result.reason == "of 7 files 4 failed"
    assert counts(result) == (2, 1, 4, 0)
    told = {each.line: each for each in job.results()}
    assert sorted(told) == sorted(BAD)  # type: ignore[type-var]  # lines are numbers here
    for line, words in BAD.items():
        assert words in (told[line].error or "")
        assert told[line].outcome == "failed"
    assert told[7].path == "d/none"
    assert_cached(cache, folder, ["one", "train/b.jpg"])


def test_names_of_a_program_relative_to_the_target(cache: Cache, folder: Path) -> None:
    result = ended(cache.load("d/train", files=(f"{name}.jpg" for name in ("a", "b", "sub/c"))))
    assert counts(result) == (3, 0, 0, 0)
    assert result.progress.bytes_total == 3 * BLOCK
    assert_cached(cache, folder, ["train/a.jpg", "train/b.jpg", "train/sub/c.jpg"])


def test_a_glob_picks_from_a_file_list(cache: Cache) -> None:
    job = cache.load("d", files=["one", "train/a.jpg", "../x"], glob="**/*.jpg")
    assert counts(ended(job)) == (1, 0, 1, 0)


def test_a_list_in_which_nothing_is_wrong_is_ok(cache: Cache) -> None:
    assert ended(cache.load("d", files=["one", "big"])).ok
    assert ended(cache.load("d", files=[])).progress.files_total == 0


def test_metadata_only_brings_entries_and_no_bytes(cache: Cache) -> None:
    result = ended(cache.load("d", metadata_only=True))
    assert counts(result) == (7, 0, 0, 0)
    assert (result.progress.bytes_done, result.progress.bytes_total) == (0, TOTAL)
    assert cache.status()["blocks"] == 0
    assert cache.stat("d/train/sub/c.txt").size == 10


def test_a_dry_run_counts_and_touches_nothing(cache: Cache, tmp_path: Path) -> None:
    cache.load("d/train/sub", wait=True)
    before = [path for path in (tmp_path / "cache").rglob("*") if "jobs" in path.parts]
    requests = counters(cache)["source_requests"]
    job = cache.load("d", dry_run=True)
    result = ended(job)
    assert result.ok
    assert counts(result) == (4, 3, 0, 0)
    cached = SIZES["train/sub/c.jpg"] + SIZES["train/sub/c.txt"]
    assert (result.progress.bytes_done, result.progress.bytes_skipped) == (TOTAL - cached, cached)
    assert cache.status()["committed_bytes"] == cached
    assert counters(cache)["source_requests"] == requests
    assert [path for path in (tmp_path / "cache").rglob("*") if "jobs" in path.parts] == before
    assert len(cache.jobs()) == 1
    listed = cache.load("d", files=["one", "none"], dry_run=True)
    assert counts(ended(listed)) == (1, 0, 1, 0)
    assert [each.error for each in listed.results()] == ["No such file or directory"]
    assert not ended(listed).ok


def test_a_dry_run_leaves_nothing_behind(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    job = cache.load("d", dry_run=True)
    assert ended(job).ok
    del job
    assert list((tmp_path / "temporary").iterdir()) == []


def test_verify_reads_every_block_back(cache: Cache, folder: Path) -> None:
    result = ended(cache.load("d", verify=True))
    assert result.ok
    assert counts(result) == (6, 1, 0, 0)
    assert counters(cache)["hits_mem"] >= 3 + 2 + 1 + 145


def test_verify_finds_damage_and_fetches_again(cache: Cache, folder: Path, memory_path: Path) -> None:
    cache.load("d/train", wait=True)
    data = (folder / "train/b.jpg").read_bytes()
    damaged = 0
    for path in memory_path.rglob("*"):
        if path.is_file() and (at := path.read_bytes().find(data[:4096])) >= 0:
            with open(path, "r+b") as file:
                file.seek(at + 100)
                file.write(bytes([data[100] ^ 1]))
            damaged += 1
    assert damaged == 1
    assert ended(cache.load("d/train", verify=True)).ok
    assert counters(cache)["misses_checksum"] == 1
    assert_cached(cache, folder, ["train/b.jpg"])


def test_what_finds_no_room_makes_the_load_incomplete(tmp_path: Path, memory_path: Path) -> None:
    names = [f"f{number:03}" for number in range(100)]
    storage = FaultyStorage({name: os.urandom(MIB) for name in names})
    tiers = [Tier(str(memory_path), 16 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB, schemes=storage.schemes()) as cache:
        cache.attach("d", "faulty://x", max_age=None)
        job = cache.load("d")
        result = ended(job)
        assert (result.ok, result.state) == (False, "incomplete")
        done, skipped, failed, refused = counts(result)
        assert (skipped, failed, done + refused) == (0, 0, 100)
        assert 0 < done <= 16
        assert result.reason == f"of 100 files {refused} were not admitted to the cache"
        told = list(job.results())
        assert len(told) == refused
        assert {(each.outcome, each.error) for each in told} == {
            ("not_admitted", "found no room in the cache")
        }
        # Not all that would find no room was fetched to find that out.
        assert storage.calls["readinto"] < 60
        cached = set(names) - {each.path.removeprefix("d/") for each in told}
        before = storage.calls["read_range"]
        for name in cached:
            cache.read(f"d/{name}").release()
        assert storage.calls["read_range"] == before


def test_what_gives_way_to_the_rest_of_the_load_is_told_of(tmp_path: Path, memory_path: Path) -> None:
    names = [f"f{number:03}" for number in range(64)]
    storage = FaultyStorage({name: os.urandom(MIB) for name in names})
    tiers = [Tier(str(memory_path), 16 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB, schemes=storage.schemes()) as cache:
        cache.attach("d", "faulty://x", max_age=None, retention="lru")

        def until_some_gave_way() -> None:
            wait_until(lambda: counters(cache)["evicted"] > 0, "the maintainer makes room")

        # A maintainer that gets no processor makes no room: the load is told so, and goes on without.
        storage.script("readinto", *[None] * 24, *[until_some_gave_way] * 40)
        job = cache.load("d")
        result = ended(job)
        assert (result.ok, result.state) == (False, "incomplete")
        told = list(job.results())
        lost = {each.path.removeprefix("d/") for each in told}
        assert len(told) == len(lost) >= 48
        assert "were evicted again to make room for others" in result.reason
        assert "evicted" in {each.outcome for each in told}
        # Eviction goes on a little afterwards, but nothing comes back.
        assert ended(cache.load("d", dry_run=True)).progress.files_done >= len(lost)


def test_errors_of_the_under_storage_are_each_files_own(open_cache: OpenCache) -> None:
    storage = FaultyStorage({f"f{number}": b"x" * 100 for number in range(20)})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    storage.script(
        "read_range",
        errors.forbidden("faulty://x/f", "HTTP 403 AccessDenied"),
        errors.under_storage_error("faulty://x/f", "HTTP 500"),
    )
    job = cache.load("d")
    result = ended(job)
    assert counts(result) == (18, 0, 2, 0)
    assert {each.error for each in job.results()} == {"HTTP 403 AccessDenied", "HTTP 500"}
    assert ended(cache.resume(job.id)).ok
    assert ended(cache.job(job.id)).progress.files_skipped == 18


def test_an_object_that_changes_meanwhile_is_loaded_in_its_new_version(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"old " * 10, "big": b"old " * (3 * MIB), "gone": b"x"})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    assert ended(cache.load("d", metadata_only=True)).ok
    listed = threading.Event()
    storage.put("a", b"new " * 10)
    storage.put("big", b"new " * (3 * MIB))
    storage.remove("gone")
    listed.set()
    job = cache.load("d", files=["a", "big", "gone"])
    result = ended(job)
    assert counts(result) == (2, 0, 1, 0)
    assert [each.path for each in job.results()] == ["d/gone"]
    before = storage.calls["read_range"]
    assert bytes(cache.read("d/a")) == b"new " * 10
    assert bytes(cache.read("d/big")) == b"new " * (3 * MIB)
    assert storage.calls["read_range"] == before
    with pytest.raises(errors.NotFound):
        cache.read("d/gone")


HOSTILE = {
    "new\nline": 10,
    "esc\x1b[2J": 20,
    "not utf-8 \udcff\udcfe": 30,
    "back\\slash": 40,
    " blanks ": 50,
    "#comment": 60,
    "long/" + "n" * 250: 70,
    "\u6570\u636e/\U0001f600": 80,
}


def test_names_may_hold_anything(cache: Cache, folder: Path) -> None:
    for name, size in HOSTILE.items():
        path = folder / "hostile" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    assert counts(ended(cache.load("d/hostile"))) == (len(HOSTILE), 0, 0, 0)
    assert counts(ended(cache.load("d/hostile", files=list(HOSTILE)))) == (0, len(HOSTILE), 0, 0)
    assert_cached(cache, folder, [f"hostile/{name}" for name in HOSTILE])
    job = cache.load("d/hostile", files=[f"{name}!" for name in HOSTILE])
    assert ended(job).progress.files_failed == len(HOSTILE)
    assert sorted(each.path for each in job.results()) == sorted(f"d/hostile/{name}!" for name in HOSTILE)
    text = "\n".join(["#comment", " blanks ", "back\\slash", "\u6570\u636e/\U0001f600"])
    assert counts(ended(cache.load("d/hostile", files=io.StringIO(text)))) == (0, 3, 0, 0)


def test_a_file_list_that_a_crash_cut_short_is_not_taken_for_the_whole(cache: Cache) -> None:
    job = cache.load("d", files=["one", "big"], start=False)
    names = Path(job.log_path).with_name("names")
    names.write_bytes(b"")
    result = ended(cache.resume(job.id))
    assert (result.ok, result.state) == (False, "failed")
    assert "holds 0 names of the 2 that were given" in result.reason


def test_a_listing_that_fails_is_the_jobs_failure(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a/b": b"x"})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x")
    storage.script("list", errors.forbidden("faulty://x", "HTTP 403 AccessDenied"))
    result = ended(cache.load("d"))
    assert (result.ok, result.state) == (False, "failed")
    assert result.reason == "faulty://x: HTTP 403 AccessDenied"
    assert ended(cache.load("d/none")).state == "failed"
    assert ended(cache.resume(cache.jobs()[0].id)).ok


def test_a_rate_limit_is_kept(cache: Cache) -> None:
    begun = time.monotonic()
    result = ended(cache.load("d/train", rate_limit="128KiB"))
    taken = time.monotonic() - begun
    assert result.ok
    # A fifth of a second's worth is granted at once, and one request is not paid for before it is made.
    assert (result.progress.bytes_done / (128 * KIB) - 0.2 - 0.6) <= taken < 20


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"target": "e"}, errors.NotAttached, "no dataset 'e'"),
        ({"target": "/d"}, ValueError, "is absolute"),
        ({"target": "d/../e"}, ValueError, "contains the part"),
        ({"target": "d", "glob": "/x"}, ValueError, "relative to what is loaded"),
        ({"target": "d", "files": 7}, TypeError, "is neither"),
        ({"target": "d", "files": "no/such/list"}, FileNotFoundError, "No such file"),
        ({"target": "d", "rate_limit": 0}, errors.ConfigError, "would never end"),
        ({"target": "d", "rate_limit": "fast"}, errors.ConfigError, "is no size"),
    ],
)
def test_what_cannot_be_asked_for_is_an_error_at_once(
    cache: Cache, arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cache.load(**arguments)  # type: ignore[arg-type]  # some of them wrong
    assert cache.jobs() == []


def test_a_cache_opened_to_be_read_only_loads_nothing(cache: Cache, open_cache: OpenCache) -> None:
    reader = open_cache(read_only=True)
    with pytest.raises(PermissionError, match="read only"):
        reader.load("d")
    assert ended(reader.load("d", dry_run=True)).progress.files_total == 7


def test_the_whole_of_a_wait_that_is_too_short(open_cache: OpenCache) -> None:
    go_on = threading.Event()
    storage = FaultyStorage({"a": b"x" * 10})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x")
    storage.script("readinto", lambda: go_on.wait(60))
    job = cache.load("d")
    with pytest.raises(TimeoutError, match=r"still runs after 0\.2 s"):
        job.wait(0.2)
    assert job.progress().state == "running"
    go_on.set()
    assert ended(job).ok
