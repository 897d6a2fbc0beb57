"""What an S3 server does wrong, seen through the whole cache: got over, or raised and never remembered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.store import View
from forebay.testing.faults import Fault
from forebay.testing.faulty import FaultyStorage
from forebay.testing.proxy import Proxy
from forebay.ufs import RangeBody
from tests._s3 import BUCKET, FakeS3, Handler, etag_of, give_keys
from tests.faults._child import wait_until
from tests.faults._source import BLOCK, content

SIZE: Final = 5 * BLOCK + 7
DATA: Final = content("object", SIZE)
TIMEOUT_S: Final = 1
# More than any fault here strikes: a machine that stands still for a second costs an attempt, too.
ATTEMPTS: Final = 10
# Where the fault is another than silence, which a machine that stands still must not be taken for.
PATIENT_S: Final = 60
# Over what is waited for on purpose, on a machine that others use as well.
SLACK_S: Final = 20.0
# Connections of a client that a fault may have left behind.
KEPT_MAX: Final = 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.objects["object"] = DATA
        server.objects["other"] = b"other"
        yield server


@pytest.fixture
def proxy(server: FakeS3) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", server.server_address[1])) as proxy:
        yield proxy


@pytest.fixture
def cache(proxy: Proxy, tmp_path: Path, memory_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", [Tier(str(memory_path), 64 * MIB, "MEM")], block_bytes=BLOCK) as cache:
        attach(cache, proxy, "d")
        attach(cache, proxy, "once", attempts=1, timeout_s=PATIENT_S)
        attach(cache, proxy, "impatient", attempts=1)
        yield cache


def attach(cache: Cache, proxy: Proxy, name: str, **options: Any) -> None:
    options = {"max_age": None, "timeout_s": TIMEOUT_S, "attempts": ATTEMPTS, **options}
    cache.attach(name, f"s3://{BUCKET}", endpoint_url=proxy.url, **options)


def forget(cache: Cache, dataset: str, *, is_listed: bool) -> None:
    """Have nothing cached, and nothing known but what a listing tells."""
    cache.free(dataset, metadata=True)
    if is_listed:
        cache.listdir(dataset)


def read_again(cache: Cache, dataset: str, offset: int = 0, length: int | None = None) -> View:
    """Read by one attempt from a source that is well again.

    Of the connections that are kept from before, some may still end as the fault had it.
    """
    for _ in range(KEPT_MAX):
        with suppress(UnderStorageError, TimeoutError):
            return cache.read(f"{dataset}/object", offset, length)
    return cache.read(f"{dataset}/object", offset, length)


PASSING: Final = {
    "503 burst": [Fault("status", status=503, times=2)],
    "500 burst": [Fault("status", status=500, times=2)],
    "429 burst": [Fault("status", status=429, times=2)],
    "stall": [Fault("delay", delay_s=10, times=1)],
    "stall in the body": [Fault("delay", after_bytes=BLOCK, delay_s=10, times=1)],
    "reset": [Fault("reset", after_bytes=BLOCK + 3, times=2)],
    "truncated": [Fault("truncate", after_bytes=BLOCK + 3, times=2)],
    "no answer": [Fault("reset", times=2)],
}


@pytest.mark.parametrize("is_listed", [False, True])
def test_what_passes_is_got_over(cache: Cache, proxy: Proxy, is_listed: bool) -> None:
    for what, faults in PASSING.items():
        forget(cache, "d", is_listed=is_listed)
        proxy.set_faults(faults)
        begun_s = time.monotonic()
        assert cache.read("d/object") == DATA, what
        assert time.monotonic() - begun_s < TIMEOUT_S + SLACK_S, what
        proxy.set_faults([])
        assert cache.read("d/object") == DATA, what
    assert cache.check().ok


STAYING: Final[dict[str, tuple[Fault, type[OSError]]]] = {
    "503": (Fault("status", status=503), UnderStorageError),
    "429": (Fault("status", status=429), UnderStorageError),
    "500": (Fault("status", status=500), UnderStorageError),
    "stall": (Fault("cut"), TimeoutError),
    "stall in the body": (Fault("cut", after_bytes=10), TimeoutError),
    "reset": (Fault("reset", after_bytes=10), UnderStorageError),
    "truncated": (Fault("truncate", after_bytes=10), UnderStorageError),
    "forbidden": (Fault("status", status=403), PermissionError),
    "gone": (Fault("status", status=404), NotFound),
}


@pytest.mark.parametrize("is_listed", [False, True])
def test_what_stays_is_raised_and_not_remembered(cache: Cache, proxy: Proxy, is_listed: bool) -> None:
    attempts: list[Callable[[str], object]] = [
        cache.read,
        lambda path: cache.readinto(path, bytearray(SIZE)),
        lambda path: cache.read_many([path, path]),
    ]
    for fault, kind in STAYING.values():
        dataset = "impatient" if kind is TimeoutError else "once"
        for attempt in attempts[: 1 if kind is TimeoutError else None]:
            forget(cache, dataset, is_listed=is_listed)
            proxy.set_faults([fault])
            with pytest.raises(OSError, match="object") as caught:
                attempt(f"{dataset}/object")
            assert type(caught.value) is kind
            assert caught.value.filename
            assert caught.value.strerror
            proxy.set_faults([])
            assert read_again(cache, dataset) == DATA
    wait_until(lambda: not cache.status()["fetch"]["in_flight"], "permits are given back")
    assert cache.status()["fetch"]["memory_bytes"] == 0


def answers(**changed: str) -> Callable[[Handler], object]:
    """Answer GETs of the object with headers that are wrong in something."""

    def answer(handler: Handler) -> object:
        if not handler.path.endswith("/object") or handler.command != "GET":
            return False
        first, last = handler.headers.get("Range", "bytes=0-0")[6:].split("-")
        last = str(min(int(last), SIZE - 1))
        body = DATA[int(first) : int(last) + 1]
        headers = {
            "ETag": f'"{etag_of(DATA)}"',
            "Content_Range": f"bytes {first}-{last}/{SIZE}",
            "Content_Length": str(len(body)),
        }
        for name, value in changed.items():
            headers[name] = value.format(length=len(body), less=len(body) - 1, more=len(body) + 1)
        status = int(headers.pop("status", "206"))
        given = {"whole": DATA, "empty": b"", "": body}[headers.pop("body", "")]
        handler.reply(status, given, **{name: value for name, value in headers.items() if value})
        handler.close_connection = True
        return True

    return answer


WRONG: Final = {
    "Content-Length too small": answers(Content_Length="{less}"),
    "Content-Length too large": answers(Content_Length="{more}"),
    "Content-Range elsewhere": answers(Content_Range=f"bytes 1-{SIZE}/{SIZE + 1}"),
    "Content-Range shorter": answers(Content_Range=f"bytes 0-9/{SIZE}"),
    "no Content-Range": answers(Content_Range="", status="206"),
    "Content-Range is nonsense": answers(Content_Range="bytes fish"),
    "empty body": answers(body="empty", Content_Length="0"),
    "another ETag": answers(ETag='"another"'),
}


@pytest.mark.parametrize("is_listed", [False, True])
def test_answers_that_prove_nothing_are_never_shown(cache: Cache, server: FakeS3, is_listed: bool) -> None:
    """Whether it is known what the object is, or the answer is the first to tell; parts and the whole."""
    raised: Counter[str] = Counter()
    for what, wrong in WRONG.items():
        for offset, length in ((BLOCK + 5, 10), (0, SIZE)):
            forget(cache, "once", is_listed=is_listed)
            server.interfere = wrong
            try:
                # Right after all, as with an ETag that is believed as long as nothing else was seen.
                assert cache.read("once/object", offset, length) == DATA[offset : offset + length], what
            except (UnderStorageError, Stale):
                raised[what] += 1
            server.interfere = None
            cache.sync("once")
            assert read_again(cache, "once", offset, length) == DATA[offset : offset + length], what
    assert cache.check().ok
    assert raised.keys() >= WRONG.keys() - {"Content-Length too small", "another ETag"}


def test_200_for_206_is_taken_only_for_the_whole(cache: Cache, server: FakeS3) -> None:
    server.interfere = answers(status="200", body="whole", Content_Range="", Content_Length=str(SIZE))
    assert cache.read("d/object") == DATA
    cache.free("d", metadata=True)
    cache.sync("once")
    with pytest.raises(UnderStorageError, match="asked for bytes"):
        cache.read("once/object", 2 * BLOCK, 5)
    server.interfere = None
    assert cache.read("d/object", 2 * BLOCK, 5) == DATA[2 * BLOCK : 2 * BLOCK + 5]


@pytest.mark.parametrize("after_bytes", [0, 3 * BLOCK])
@pytest.mark.parametrize("is_listed", [False, True])
def test_overwritten_during_a_read_is_old_or_new_and_never_both(
    cache: Cache, proxy: Proxy, server: FakeS3, after_bytes: int, is_listed: bool
) -> None:
    if is_listed:
        cache.listdir("d")
    new = content("new", SIZE)
    # The connection breaks in the middle, and by the time that it is taken up again there is another object.
    proxy.set_faults([Fault("reset", after_bytes=after_bytes, match="/object", times=1)])
    requests = 0

    def overwrite(handler: Handler) -> bool:
        nonlocal requests
        requests += handler.path.endswith("/object")
        if requests == 2:
            server.objects["object"] = new
        return False

    server.interfere = overwrite
    assert bytes(cache.read("d/object")) in (DATA, new)
    server.interfere = None
    cache.sync("d")
    assert cache.read("d/object") == new


def test_deleted_forbidden_expired_and_no_bucket_are_told_apart(
    cache: Cache, proxy: Proxy, server: FakeS3
) -> None:
    attach(cache, proxy, "checked", max_age=0, timeout_s=PATIENT_S)
    assert cache.read("checked/object") == DATA
    refusals: dict[tuple[int, str], type[OSError]] = {
        (403, "AccessDenied"): PermissionError,
        (400, "ExpiredToken"): PermissionError,
        (404, "NoSuchBucket"): UnderStorageError,
    }
    for (status, code), kind in refusals.items():
        server.interfere = lambda handler, status=status, code=code: handler.refuse(status, code)
        for attempt in (lambda: cache.listdir("checked"), lambda: cache.read("once/other")):
            with pytest.raises(OSError, match=f"{code}|bucket 'bucket' does not exist") as caught:
                attempt()
            assert type(caught.value) is kind
        server.interfere = None
        assert cache.listdir("checked") == ["object", "other"]
    del server.objects["object"]
    with pytest.raises(NotFound):
        cache.read("checked/object")
    assert cache.listdir("checked") == ["other"]
    server.objects["object"] = DATA
    assert cache.read("checked/object") == DATA


@pytest.mark.parametrize("kind", [UnderStorageError, TimeoutError, PermissionError])
def test_a_failed_listing_or_stat_is_no_answer(
    tmp_path: Path, memory_path: Path, kind: type[OSError]
) -> None:
    storage = FaultyStorage({"sub/a": b"1", "b": b"22"})
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, schemes=storage.schemes()) as cache:
        cache.attach("d", "faulty://x", max_age=0, negative_ttl=1000)
        assert cache.listdir("d") == ["b", "sub"]
        attempts: dict[str, list[Callable[[], object]]] = {
            "list": [lambda: cache.listdir("d"), lambda: cache.sync("d"), lambda: list(cache.walk("d"))],
            "stat": [lambda: cache.stat("d/b"), lambda: cache.exists("d/b"), lambda: cache.read("d/b")],
        }
        cache.read("d/b").release()
        for operation, calls in attempts.items():
            for call in calls:
                storage.script(operation, kind(5, "on purpose", "b"))  # type: ignore[arg-type]
                with pytest.raises(kind, match="on purpose"):
                    call()
        assert cache.exists("d/b")
        assert sorted(name for _, _, names in cache.walk("d") for name in names) == ["a", "b"]
        assert cache.read("d/b") == b"22"


class ShortStorage(FaultyStorage):
    """Sends less than it was asked for, whatever the contract says."""

    missing_bytes = 1

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        return super().read_range(path, offset, length - self.missing_bytes, version)


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_driver_that_sends_too_little_is_not_believed(
    tmp_path: Path, memory_path: Path, is_listed: bool
) -> None:
    storage = ShortStorage({"a": DATA[: 2 * BLOCK]})
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, schemes=storage.schemes(), block_bytes=BLOCK) as cache:
        cache.attach("d", "faulty://x", max_age=None)
        if is_listed:
            cache.listdir("d")
        for offset, length in ((0, 10), (0, 2 * BLOCK)):
            with pytest.raises(UnderStorageError, match="bytes"):
                cache.read("d/a", offset, length)
        storage.missing_bytes = 0
        assert cache.read("d/a") == DATA[: 2 * BLOCK]


def test_many_readers_meet_a_burst_of_refusals(cache: Cache, proxy: Proxy, server: FakeS3) -> None:
    server.fill(range(40), b"x" * 1_000)
    proxy.set_faults([Fault("status", status=503, times=20)])
    found: list[bytes] = []

    def read(first: int) -> None:
        found.extend(bytes(cache.read(f"d/{number:07}")) for number in range(first, 40, 4))

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"x" * 1_000] * 40
    assert proxy.stats()["faults"] == 20
