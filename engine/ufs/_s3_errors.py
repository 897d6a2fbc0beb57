"""botocore's exceptions in our words: what an S3 error means, told by status and code, with the path."""

from __future__ import annotations

import errno
from typing import Any, Final

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from forebay import errors

# What a request or the reading of a body may raise; urllib3's own pass through botocore's streams in places.
FAILURES: Final = (boto.ClientError, boto.BotoCoreError, HTTPError, OSError)

_TIMEOUTS: Final = (boto.ConnectTimeoutError, boto.ReadTimeoutError, Urllib3TimeoutError, TimeoutError)
_NO_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.SSOTokenLoadError,
)
# Expired credentials come as 400, which alone would say nothing of permissions.
_CREDENTIAL_CODES: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired", "TokenRefreshRequired"}
)
_TIMEOUT_CODES: Final = frozenset({"RequestTimeout", "RequestTimeoutException"})


def status_of(error: Exception) -> int:
    """Return the HTTP status in the error, 0 if there was no response."""
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translate(error: Exception, uri: str) -> OSError:
    """Return the exception to raise ``from error`` for the object at uri.

    A Stale has to be told by the caller.
    """
    if isinstance(error, boto.ClientError):
        return _translate_answer(error, uri)
    if isinstance(error, _TIMEOUTS):
        return errors.timed_out(uri, f"timed out: {error}")
    if isinstance(error, _NO_CREDENTIALS):
        return errors.forbidden(uri, f"no usable credentials: {error}")
    if isinstance(error, boto.EndpointConnectionError):
        return errors.under_storage_error(uri, str(error), errno.ECONNREFUSED)
    return errors.under_storage_error(uri, f"{type(error).__name__}: {error}")


def _translate_answer(error: boto.ClientError, uri: str) -> OSError:
    status = status_of(error)
    code = str(_response(error).get("Error", {}).get("Code", ""))
    words = str(_response(error).get("Error", {}).get("Message", ""))
    cause = f"HTTP {status} " + (f"{code}: {words}" if code not in ("", str(status)) else words)
    if code == "NoSuchBucket":
        return errors.under_storage_error(uri, "the bucket does not exist", errno.ENXIO)
    if status == 404:
        return errors.not_found(uri, cause)
    if status in (401, 403) or code in _CREDENTIAL_CODES:
        return errors.forbidden(uri, cause)
    if status in (408, 504) or code in _TIMEOUT_CODES:
        return errors.timed_out(uri, cause)
    return errors.under_storage_error(uri, cause)


def _response(error: Exception) -> dict[str, Any]:
    return getattr(error, "response", None) or {}
