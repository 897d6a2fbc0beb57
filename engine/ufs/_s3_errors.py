"""What a failed S3 request means, in our words, whichever client made it.

A Failure is told by HTTP status and code, or by the kind of the client's exception; it says what to raise
and whether asking again may help. What a server says is shown, what it quotes of the request is not.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import Any, Final

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from forebay import errors
from forebay.ufs._http_range import WrongRange


class Kind(enum.Enum):
    """What went wrong, as far as it makes a difference."""

    ABSENT = enum.auto()
    NO_BUCKET = enum.auto()
    FORBIDDEN = enum.auto()
    EXPIRED = enum.auto()
    CHANGED = enum.auto()
    # Another request for the same object was under way; a precondition could not be judged.
    CONFLICT = enum.auto()
    NO_UPLOAD = enum.auto()
    BEHIND_THE_END = enum.auto()
    TIMED_OUT = enum.auto()
    THROTTLED = enum.auto()
    BROKEN = enum.auto()
    REFUSED = enum.auto()
    # One client failed in a way that says little; the other may do better, or say more.
    ODD = enum.auto()


_PASSING: Final = frozenset({Kind.CONFLICT, Kind.TIMED_OUT, Kind.THROTTLED, Kind.BROKEN})


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request: its kind, the cause in words, and the errno where there is a better one than EIO.

    status is that of the HTTP response, 0 if there was none.
    """

    kind: Kind
    cause: str
    errno: int = errno.EIO
    status: int = 0

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in _PASSING

    def exception(self, uri: str) -> OSError:
        """Return the exception to raise for the object at uri; a Stale is the caller's to tell."""
        if self.kind is Kind.ABSENT:
            return errors.not_found(uri, self.cause)
        if self.kind is Kind.NO_BUCKET:
            bucket = uri.removeprefix("s3://").partition("/")[0]
            return errors.under_storage_error(uri, f"the bucket {bucket!r} does not exist", errno.ENXIO)
        if self.kind is Kind.FORBIDDEN:
            return errors.forbidden(uri, self.cause)
        if self.kind is Kind.EXPIRED:
            return errors.forbidden(uri, f"the credentials have expired; renew them ({self.cause})")
        if self.kind is Kind.TIMED_OUT:
            return errors.timed_out(uri, self.cause)
        return errors.under_storage_error(uri, self.cause, self.errno)


class Failed(Exception):  # noqa: N818  (carries a failure between modules; never leaves the package)
    """A request failed; raised ``from`` the client's own exception."""

    def __init__(self, failure: Failure) -> None:
        """Carry the failure."""
        super().__init__(failure.cause)
        self.failure: Final = failure


def broken(cause: str) -> Failed:
    """Return what to raise about an answer that is not what was asked for."""
    return Failed(Failure(Kind.BROKEN, cause))


# What a request or the reading of a body may raise in boto3; urllib3's own pass through botocore's streams in
# places.
BOTO_FAILURES: Final = (boto.ClientError, boto.BotoCoreError, HTTPError, OSError)

_TIMEOUTS: Final = (boto.ConnectTimeoutError, boto.ReadTimeoutError, Urllib3TimeoutError, TimeoutError)
_NO_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.SSOTokenLoadError,
)
# The request was never sent, or will be as wrong the next time.
_NOT_PASSING: Final = (boto.ParamValidationError, boto.InvalidEndpointConfigurationError, boto.NoRegionError)

_CODES: Final = {
    "NoSuchBucket": Kind.NO_BUCKET,
    "NoSuchUpload": Kind.NO_UPLOAD,
    "ConditionalRequestConflict": Kind.CONFLICT,
}
# Expired credentials come as 400, which alone would say nothing of permissions.
_EXPIRED_CODES: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
_FORBIDDEN_CODES: Final = frozenset({"InvalidToken"})
_TIMEOUT_CODES: Final = frozenset({"RequestTimeout", "RequestTimeoutException"})
_THROTTLING_CODES: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)


def of_answer(status: int, code: str, words: str) -> Failure:
    """Return what an HTTP answer means that is no success; code and words are those of its body, if any."""
    cause = f"HTTP {status} " + (f"{code}: {words}" if code not in ("", str(status)) else words)
    return Failure(_kind_of_answer(status, code), cause.rstrip(": "), status=status)


def _kind_of_answer(status: int, code: str) -> Kind:
    if code in _CODES:
        return _CODES[code]
    if code in _EXPIRED_CODES:
        return Kind.EXPIRED
    if status in (401, 403) or code in _FORBIDDEN_CODES:
        return Kind.FORBIDDEN
    # 503 is what S3 throttles with, whatever the words.
    if status in (429, 503) or code in _THROTTLING_CODES:
        return Kind.THROTTLED
    if status in (408, 504) or code in _TIMEOUT_CODES:
        return Kind.TIMED_OUT
    kinds = {404: Kind.ABSENT, 412: Kind.CHANGED, 416: Kind.BEHIND_THE_END}
    return kinds.get(status, Kind.BROKEN if status >= 500 else Kind.REFUSED)


def of_boto(error: Exception) -> Failure:
    """Return what an exception of boto3, or one that passes through it, means."""
    if isinstance(error, boto.ClientError):
        response: dict[str, Any] = getattr(error, "response", None) or {}
        told = response.get("Error", {})
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return of_answer(status, str(told.get("Code", "")), str(told.get("Message", "")))
    if isinstance(error, WrongRange):
        return Failure(Kind.BROKEN, str(error))
    if isinstance(error, _TIMEOUTS):
        return Failure(Kind.TIMED_OUT, f"timed out: {error}", errno.ETIMEDOUT)
    if isinstance(error, _NO_CREDENTIALS):
        return Failure(Kind.FORBIDDEN, f"no usable credentials: {error}")
    if isinstance(error, boto.EndpointConnectionError):
        return Failure(Kind.BROKEN, str(error), errno.ECONNREFUSED)
    kind = Kind.REFUSED if isinstance(error, _NOT_PASSING) else Kind.BROKEN
    return Failure(kind, f"{type(error).__name__}: {error}")
