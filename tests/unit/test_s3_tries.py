"""One budget of attempts and time for each operation."""

from __future__ import annotations

import pytest

from forebay.errors import Closed, NotFound, UnderStorageError
from forebay.ufs import _s3_tries
from forebay.ufs._s3_errors import Failed, Failure, Kind
from forebay.ufs._s3_tries import Policy, Tries
from forebay.ufs._stop import Stop
from forebay.ufs._throttle import Throttle

URI = "s3://bucket/key"


class Requests:
    """A request that fails as told, so often, and then succeeds."""

    def __init__(self, *kinds: Kind) -> None:
        self.failures = [Failure(kind, f"failure {number}") for number, kind in enumerate(kinds, 1)]
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.count <= len(self.failures):
            raise Failed(self.failures[self.count - 1])
        return "done"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_s3_tries, "_PAUSE_S", 1e-6)


def tries(policy: Policy, noted: list[Failure] | None = None) -> Tries:
    return Tries(policy, Throttle(), (noted if noted is not None else []).append, Stop(), URI)


@pytest.mark.parametrize("kind", [Kind.BROKEN, Kind.TIMED_OUT])
def test_what_may_pass_is_tried_so_often(kind: Kind) -> None:
    noted: list[Failure] = []
    request = Requests(*[kind] * 3)
    assert tries(Policy(4, 1.0), noted).run(request) == "done"
    assert (request.count, noted) == (4, request.failures)
    request = Requests(*[kind] * 4)
    with pytest.raises((UnderStorageError, TimeoutError), match=f"failure 4: '{URI}'"):
        tries(Policy(4, 1.0)).run(request)
    assert request.count == 4


@pytest.mark.parametrize("kind", [Kind.ABSENT, Kind.FORBIDDEN, Kind.EXPIRED, Kind.REFUSED, Kind.NO_BUCKET])
def test_everything_else_is_raised_at_once(kind: Kind) -> None:
    request = Requests(kind)
    with pytest.raises(OSError, match="key"):
        tries(Policy(4, 1.0)).run(request)
    assert request.count == 1


def test_a_server_that_asks_for_patience_gets_three_times_the_attempts() -> None:
    request = Requests(*[Kind.THROTTLED] * 5)
    assert tries(Policy(2, 1.0)).run(request) == "done"
    request = Requests(*[Kind.THROTTLED] * 6)
    with pytest.raises(UnderStorageError, match="failure 6"):
        tries(Policy(2, 1.0)).run(request)


def test_both_kinds_share_one_budget() -> None:
    request = Requests(Kind.THROTTLED, Kind.BROKEN, Kind.THROTTLED, Kind.BROKEN)
    with pytest.raises(UnderStorageError, match="failure 4"):
        tries(Policy(2, 1.0)).run(request)


def test_nothing_is_tried_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_s3_tries, "CONNECT_TIMEOUT_S", 0.0)
    late = tries(Policy(1_000_000, 0.0))
    request = Requests(*[Kind.BROKEN] * 10)
    with pytest.raises(UnderStorageError, match="failure 1"):
        late.run(request)
    with pytest.raises(TimeoutError, match="too slowly"):
        late.check()


def test_the_deadline_leaves_time_for_the_bytes() -> None:
    assert Policy(2, 10.0).deadline_s(0) == 30.0
    assert Policy(2, 10.0).deadline_s(64 << 20) == 30.0 + 1024.0


def test_nothing_is_tried_once_the_storage_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_s3_tries, "_PAUSE_S", 1e6)
    monkeypatch.setattr(_s3_tries, "_PAUSE_MAX_S", 1e6)
    stop, throttle, attempts = Stop(), Throttle(), []
    going_on = Tries(Policy(100, 1e9), throttle, lambda failure: None, stop, URI)

    def close_and_fail() -> None:
        attempts.append(1)
        stop.set()
        raise Failed(Failure(Kind.BROKEN, "broken"))

    # Neither the pause is waited for, nor the turn at the server.
    with pytest.raises(Closed, match=URI):
        going_on.run(close_and_fail)
    throttle.limit(1e-6)
    for look in (going_on.admit, going_on.check):
        with pytest.raises(Closed, match=URI):
            look()
    assert len(attempts) == 1


def test_the_cause_is_chained() -> None:
    def request() -> None:
        try:
            raise ConnectionResetError("by the client")
        except OSError as error:
            raise Failed(Failure(Kind.ABSENT, "gone")) from error

    with pytest.raises(NotFound, match="gone") as caught:
        tries(Policy(1, 1.0)).run(request)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
