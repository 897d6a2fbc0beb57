"""What failed requests mean, told alike by what boto3 raises and by what obstore says."""

from __future__ import annotations

import errno

import pytest
from botocore import exceptions as boto
from obstore.exceptions import GenericError, UnauthenticatedError
from urllib3.exceptions import IncompleteRead, ReadTimeoutError

from forebay.errors import NotFound, UnderStorageError
from forebay.ufs._s3_errors import Kind, of_answer, of_boto
from forebay.ufs._s3_obstore import failure_of

URI = "s3://some-bucket/some/key"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", Kind.ABSENT),
        (404, "", Kind.ABSENT),
        (404, "NoSuchBucket", Kind.NO_BUCKET),
        (403, "AccessDenied", Kind.FORBIDDEN),
        (401, "", Kind.FORBIDDEN),
        (400, "InvalidToken", Kind.FORBIDDEN),
        (400, "ExpiredToken", Kind.EXPIRED),
        (403, "RequestExpired", Kind.EXPIRED),
        (412, "PreconditionFailed", Kind.CHANGED),
        (416, "InvalidRange", Kind.BEHIND_THE_END),
        (429, "", Kind.THROTTLED),
        (503, "SlowDown", Kind.THROTTLED),
        (503, "", Kind.THROTTLED),
        (400, "RequestLimitExceeded", Kind.THROTTLED),
        (400, "RequestTimeout", Kind.TIMED_OUT),
        (408, "", Kind.TIMED_OUT),
        (504, "", Kind.TIMED_OUT),
        (500, "InternalError", Kind.BROKEN),
        (502, "", Kind.BROKEN),
        (301, "PermanentRedirect", Kind.REFUSED),
        (400, "BadRequest", Kind.REFUSED),
        (418, "", Kind.REFUSED),
    ],
)
def test_answers(status: int, code: str, kind: Kind) -> None:
    failure = of_answer(status, code, "words")
    assert failure.kind is kind
    assert failure.cause.startswith(f"HTTP {status}")
    assert "words" in failure.cause
    assert failure.passing == (kind in (Kind.THROTTLED, Kind.TIMED_OUT, Kind.BROKEN))
    response = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert of_boto(boto.ClientError(response, "GetObject")).kind is kind
    body = f"<Error><Code>{code}</Code><Message>words</Message></Error>"
    status_line = f"Server returned non-2xx status code: {status} X: {body}"
    told = failure_of(GenericError(f"Error performing GET http://h/b/k in 1ms - {status_line}"))
    # What is nothing but refused, boto3 may know a way around: another region's endpoint, for example.
    assert told.kind is (Kind.ODD if kind is Kind.REFUSED else kind)


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (404, "NoSuchKey", NotFound, "NoSuchKey"),
        (404, "NoSuchBucket", UnderStorageError, "'some-bucket' does not exist"),
        (403, "AccessDenied", PermissionError, "AccessDenied"),
        (400, "ExpiredToken", PermissionError, "credentials have expired"),
        (504, "", TimeoutError, "HTTP 504"),
        (503, "SlowDown", UnderStorageError, "SlowDown"),
        (418, "", UnderStorageError, "HTTP 418"),
    ],
)
def test_exceptions_name_uri_and_cause(status: int, code: str, kind: type[OSError], words: str) -> None:
    error = of_answer(status, code, "in words").exception(URI)
    assert type(error) is kind
    assert error.filename == URI
    assert words in (error.strerror or "")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.ReadTimeoutError(endpoint_url="http://h"), Kind.TIMED_OUT),
        (boto.ConnectTimeoutError(endpoint_url="http://h"), Kind.TIMED_OUT),
        (ReadTimeoutError(None, "http://h", "silent"), Kind.TIMED_OUT),  # type: ignore[arg-type]
        (IncompleteRead(1, 2), Kind.BROKEN),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Kind.BROKEN),
        (boto.EndpointConnectionError(endpoint_url="http://h"), Kind.BROKEN),
        (boto.ResponseStreamingError(error="broken"), Kind.BROKEN),
        (boto.NoCredentialsError(), Kind.FORBIDDEN),
        (boto.ParamValidationError(report="key too long"), Kind.REFUSED),
    ],
)
def test_what_boto3_raises_without_an_answer(error: Exception, kind: Kind) -> None:
    assert of_boto(error).kind is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Generic S3 error: HTTP error: request or response body error\n kind: Interrupted,", Kind.BROKEN),
        ("Generic S3 error: HTTP error: request or response body error\n kind: Timeout,", Kind.TIMED_OUT),
        ("Generic S3 error: ... - HTTP error: error sending request\n kind: Request,", Kind.BROKEN),
        ("Generic S3 error: ... - HTTP error: error sending request\n kind: Connect,", Kind.ODD),
        ("something that nobody has seen yet", Kind.ODD),
    ],
)
def test_what_obstore_says_without_an_answer(text: str, kind: Kind) -> None:
    assert failure_of(GenericError(text)).kind is kind


def test_obstores_trouble_with_credentials_is_left_to_boto3() -> None:
    assert failure_of(UnauthenticatedError("External AWS credential provider: ...")).kind is Kind.ODD
