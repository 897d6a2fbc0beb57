"""What a caller makes of the statuses that members answer with."""

from __future__ import annotations

import errno

import grpc
import pytest

from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.peer.service.errors import as_error, status_of


class Answered(grpc.RpcError):  # type: ignore[misc]
    """A call that ended with a status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    "error",
    [
        NotFound(errno.ENOENT, "no such object"),
        Stale(errno.ESTALE, "changed"),
        PermissionError(errno.EACCES, "AccessDenied"),
        TimeoutError(errno.ETIMEDOUT, "no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_what_it_was(error: OSError) -> None:
    found = as_error(Answered(*status_of(error)))
    assert isinstance(found, OSError)
    assert (type(found), found.errno, found.strerror) == (type(error), error.errno, error.strerror)


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED])
def test_a_refusal_is_no_failure_of_the_storage(code: grpc.StatusCode) -> None:
    found = as_error(Answered(code, "permission denied"))
    assert isinstance(found, PermissionError)
    assert found.errno == errno.EACCES


def test_a_member_that_does_not_answer_is_a_failure_of_the_storage() -> None:
    found = as_error(Answered(grpc.StatusCode.UNAVAILABLE, "connection refused"))
    assert isinstance(found, UnderStorageError)
