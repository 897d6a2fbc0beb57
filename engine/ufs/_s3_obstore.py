"""GETs by obstore: several times as many small objects a second as boto3, without the interpreter's lock.

It is told what boto3 knows: endpoint, region, credentials as they are at the moment. What it cannot do, or
fails at in a way of its own, is left to boto3. Its threads do not survive a fork, and a forked child that
used it would wait for them for ever: there it is not used if the parent had it loaded.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import NoCredentialsError

from forebay.ufs._s3_endpoint import Endpoint
from forebay.ufs._s3_errors import BOTO_FAILURES, Failed, Failure, Kind, broken, of_answer
from forebay.ufs._s3_get import Wanted, describe
from forebay.ufs._s3_tries import CONNECT_TIMEOUT_S
from forebay.ufs.base import PIECE_BYTES, ObjectInfo, RequestKind

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import S3Credential, S3Store

    from forebay.ufs._s3_boto import BotoClient

# A body is read in one piece up to this length, above it in steps, for the sake of whoever watches progress.
_ONE_PIECE_BYTES: Final = 1 << 20
# The silence of a socket is bounded by the attachment's time-out; this only ends what trickles.
_REQUEST_TIMEOUT_S: Final = 600.0
# boto3 renews credentials a quarter of an hour before they expire, so what it gives holds for this long.
_CREDENTIALS_HOLD: Final = timedelta(minutes=10)
# How often obstore may fail where boto3 then succeeds, and how long it is left alone after that.
_ODD_FAILURES_MAX: Final = 3
_REST_S: Final = 60.0

_NOTHING: Final = memoryview(b"")
_STATUS: Final = re.compile(r"Server returned non-2xx status code: ([0-9]{3})")
_CODE: Final = re.compile(r"<Code>([^<]{1,100})</Code>")
_WORDS: Final = re.compile(r"<Message>([^<]{0,500})</Message>")
_NOT_PARTIAL: Final = "Received non-partial response when range requested"
_CONNECT: Final = "kind: Connect,"
_TRANSPORT: Final = "HTTP error: "
_TIMED_OUT: Final = "kind: Timeout,"

_forked_from_user = False


def _note_fork() -> None:
    global _forked_from_user
    _forked_from_user = _forked_from_user or "obstore" in sys.modules


os.register_at_fork(after_in_child=_note_fork)


def usable() -> bool:
    """Say whether this process may use obstore."""
    return not _forked_from_user


def make_client(
    boto: BotoClient, options: Mapping[str, Any], timeout_s: float, endpoint: Endpoint
) -> ObstoreClient | None:
    """Make a client that asks what boto3's asks; None where there is only boto3's way."""
    from obstore.exceptions import BaseError

    # An access point's name is no bucket's, and only boto3 knows where it is.
    if ":" in boto.bucket:
        return None
    try:
        return ObstoreClient(_make_store(boto, options, timeout_s), endpoint, boto.on_request)
    except (BaseError, OSError, ValueError, *BOTO_FAILURES):
        # boto3 meets the same cause, and says what it is.
        return None


class ObstoreClient:
    """One bucket by obstore. Threads: any."""

    def __init__(self, store: S3Store, endpoint: Endpoint, on_request: Callable[[RequestKind], None]) -> None:
        """Use this store; on_request is told of each request before it is sent."""
        import obstore
        from obstore.exceptions import BaseError

        self._on_request: Final = on_request
        self._store: Final = store
        # Looked up once, not for each of very many objects.
        self._get: Final = obstore.get
        self._errors: Final = (BaseError, OSError)
        self._endpoint: Final = endpoint
        self._odd_failures = 0
        self._rests_until_s = 0.0

    def takes(self, wanted: Wanted) -> bool:
        """Say whether a GET is for obstore at the moment."""
        if self._rests_until_s > 0.0 and time.monotonic() < self._rests_until_s:
            return False
        # Before the first range was answered nobody knows; boto3 takes any right answer and finds out.
        return self._endpoint.answers_206 or (self._endpoint.answers_206 is False and wanted.offset == 0)

    def get(self, wanted: Wanted) -> ObstoreAnswer | None:
        """Send one GET. Returns None where it is boto3's after all.

        Where ranges are answered with 200 the object is asked for as a whole, and a range that begins it is
        read as far as wanted. Raises: Failed, with Kind.ODD where boto3 may do better.
        """
        options: GetOptions = {}
        whole = not self._endpoint.answers_206
        if not whole:
            options["range"] = (wanted.offset, wanted.offset + wanted.length)
        if if_match := wanted.if_match:
            options["if_match"] = if_match
        self._on_request("gets")
        try:
            result = self._get(self._store, wanted.key, options=options)
        except ValueError:
            # A control character, or something else that it takes for no path.
            return None
        except self._errors as error:
            if _NOT_PARTIAL in str(error):
                self._endpoint.learn_ranges(200)
                return None
            raise Failed(failure_of(error)) from error
        self._odd_failures = 0
        return self._accept(wanted, result, whole=whole)

    def _accept(self, wanted: Wanted, result: GetResult, *, whole: bool) -> ObstoreAnswer:
        meta = result.meta
        size = int(meta["size"])
        info = describe(wanted.path, size, meta["e_tag"], meta["last_modified"])
        end = min(wanted.offset + wanted.length, size)
        start, stop = result.range
        if start != wanted.offset or stop != (size if whole else end):
            last = wanted.offset + wanted.length - 1
            raise broken(f"asked for bytes {wanted.offset}-{last}, got bytes {start}-{stop - 1}")
        return ObstoreAnswer(info, end - start, result, stop - start, self._errors)

    def was_odd(self) -> None:
        """Take note that boto3 did what obstore failed at oddly; from the third in a row on it rests."""
        self._odd_failures += 1
        if self._odd_failures >= _ODD_FAILURES_MAX:
            self._odd_failures = 0
            self._rests_until_s = time.monotonic() + _REST_S


class ObstoreAnswer:
    """The answer to a GET of obstore."""

    def __init__(
        self,
        info: ObjectInfo,
        length: int,
        result: GetResult,
        claimed: int,
        errors: tuple[type[Exception], ...],
    ) -> None:
        """Take the result, whose body is still to come: claimed bytes long, or one of these errors."""
        self.info: Final = info
        self.length: Final = length
        self._result: GetResult | None = result
        self._claimed = claimed
        self._errors: Final = errors
        self._pieces: Iterator[bytes] | None = None
        self._piece = _NOTHING

    def read(self, size_max: int) -> memoryview:
        """Return what there is of the piece at hand, waiting for the next if it is used up."""
        try:
            piece = self._piece or self._next_piece()
        except self._errors as error:
            raise Failed(failure_of(error)) from error
        if len(piece) <= size_max:
            self._piece = _NOTHING
            return piece
        self._piece = piece[size_max:]
        return piece[:size_max]

    def _next_piece(self) -> memoryview:
        """Wait for the next piece, empty at the end, and hold it to the length that the answer claimed."""
        result, self._result = self._result, None
        if result is not None:
            # Not for a body of any length that a server may claim: it allocates all of it at once.
            if self._claimed <= _ONE_PIECE_BYTES:
                return self._checked(memoryview(result.bytes()))
            self._pieces = iter(result.stream(min_chunk_size=max(1, min(PIECE_BYTES, self.length))))
        piece = self._checked(memoryview(self._next_of_stream()))
        if not self._claimed and self._next_of_stream():
            raise broken("the body is longer than its range")
        return piece

    def _next_of_stream(self) -> bytes:
        return b"" if self._pieces is None else next(self._pieces, b"")

    def _checked(self, piece: memoryview) -> memoryview:
        self._claimed -= len(piece)
        if self._claimed < 0:
            raise broken(f"the body is {-self._claimed} bytes longer than its range")
        return piece

    def close(self) -> None:
        """Drop the result, and with it a connection on which something is still to come."""
        self._result = self._pieces = None
        self._piece = _NOTHING


def failure_of(error: Exception) -> Failure:
    """Read obstore's words: it has no more than them for the status and the kind of an error."""
    text = str(error)
    found = _STATUS.search(text)
    if found:
        code, words = _CODE.search(text), _WORDS.search(text)
        failure = of_answer(int(found[1]), code[1] if code else "", words[1] if words else "")
        if failure.kind is not Kind.REFUSED:
            return failure
    elif _TRANSPORT in text and _CONNECT not in text:
        first_line = text.partition("\n")[0]
        if _TIMED_OUT in text:
            return Failure(Kind.TIMED_OUT, f"timed out: {first_line}")
        return Failure(Kind.BROKEN, first_line)
    return Failure(Kind.ODD, text.partition("\n")[0])


def _make_store(boto: BotoClient, options: Mapping[str, Any], timeout_s: float) -> S3Store:
    from obstore.store import S3Store

    anonymous = bool(options.get("anonymous"))
    credentials: Any = None if anonymous else boto.session.get_credentials()
    if credentials is None and not anonymous:
        raise NoCredentialsError

    def provide() -> S3Credential:
        """Ask boto3 each time: it renews them, and nothing of them is kept here."""
        now = credentials.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_HOLD,
        }

    url, in_host_name = bucket_url(boto, options)
    region = boto.client.meta.region_name
    return S3Store(
        boto.bucket,
        endpoint=url,
        region="us-east-1" if region in (None, "aws-global") else region,
        virtual_hosted_style_request=in_host_name,
        # Said either way: the environment would speak where this is silent.
        skip_signature=anonymous,
        client_options=client_options(boto, url, timeout_s),  # type: ignore[arg-type]
        retry_config={"max_retries": 0},
        credential_provider=None if anonymous else provide,
    )


def bucket_url(boto: BotoClient, options: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the URL that obstore is to ask, and whether the bucket's name stands in its host name.

    A name with dots fits no certificate; servers other than AWS are asked by path, as by boto3.
    """
    url = str(boto.client.meta.endpoint_url)
    if options.get("endpoint_url") or "." in boto.bucket:
        return url, False
    scheme, _, host = url.partition("://")
    return f"{scheme}://{boto.bucket}.{host}", True


def client_options(boto: BotoClient, url: str, timeout_s: float) -> dict[str, Any]:
    """Return the settings of obstore's connections, which are boto3's."""
    options: dict[str, Any] = {
        "allow_http": url.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=timeout_s),
        "timeout": timedelta(seconds=_REQUEST_TIMEOUT_S),
    }
    # Where boto3 trusts a certificate authority of the site's own.
    bundle = os.environ.get("AWS_CA_BUNDLE") or boto.session.get_config_variable("ca_bundle")
    if bundle:
        options["root_certificate"] = Path(bundle).read_bytes()
    return options
