"""S3 by boto3: the client with its settings, calls, and GETs that prove which bytes they brought."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ProfileNotFound
from botocore.session import Session, get_session

from forebay.errors import ConfigError
from forebay.ufs import _s3_pages
from forebay.ufs._http_range import WrongRange, served_range
from forebay.ufs._s3_endpoint import Endpoint
from forebay.ufs._s3_errors import BOTO_FAILURES, Failed, of_boto
from forebay.ufs._s3_get import Wanted, describe
from forebay.ufs._s3_tries import CONNECT_TIMEOUT_S
from forebay.ufs.base import PIECE_BYTES, ObjectInfo, RequestKind

_CONNECTIONS: Final = 64
# What reads botocore's descriptions of services and keeps them, by where it looks.
_loaders: Final[dict[tuple[str, ...], Any]] = {}
_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn")
# By the beginning of an operation's name; all others write.
_KINDS: Final[tuple[tuple[str, RequestKind], ...]] = (
    ("Get", "gets"),
    ("Head", "heads"),
    ("List", "lists"),
    ("Delete", "deletes"),
    ("Abort", "deletes"),
)


class BotoClient:
    """One bucket by boto3. Threads: any."""

    def __init__(
        self,
        bucket: str,
        options: Mapping[str, Any],
        timeout_s: float,
        endpoint: Endpoint,
        on_request: Callable[[RequestKind], None],
    ) -> None:
        """Make the client, which connects to nothing; on_request is told of each request before it is sent.

        Raises: ConfigError (no such profile).
        """
        self.bucket: Final = bucket
        self.on_request: Final = on_request
        self._endpoint: Final = endpoint
        self.session: Final = get_session()
        try:
            session = boto3.Session(
                botocore_session=self.session,
                profile_name=options.get("profile"),
                region_name=options.get("region"),
            )
        except ProfileNotFound as error:
            raise ConfigError(f"s3://{bucket}: {error}") from error
        _share_descriptions(self.session)
        self.client: Final = session.client(
            "s3", endpoint_url=options.get("endpoint_url"), config=_config(options, timeout_s)
        )
        _s3_pages.install(self.client)
        self.client.meta.events.register("before-send.s3", self._before_send)

    @property
    def is_aws(self) -> bool:
        """Whether it is AWS itself that is asked: what AWS documents need not be tried."""
        return (urlsplit(self.client.meta.endpoint_url).hostname or "").endswith(_AWS_DOMAINS)

    def call(self, operation: str, **query: Any) -> dict[str, Any]:
        """Send one request. Raises: Failed."""
        try:
            answer: dict[str, Any] = getattr(self.client, operation)(Bucket=self.bucket, **query)
        except BOTO_FAILURES as error:
            raise Failed(of_boto(error)) from error
        return answer

    def _before_send(self, event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        kind: RequestKind = next((kind for begins, kind in _KINDS if operation.startswith(begins)), "puts")
        self.on_request(kind)

    def get(self, wanted: Wanted) -> BotoAnswer:
        """Send one GET and take from the answer what is provably the range. Raises: Failed."""
        query = {"Key": wanted.key, "Range": f"bytes={wanted.offset}-{wanted.offset + wanted.length - 1}"}
        if wanted.if_match:
            query["IfMatch"] = wanted.if_match
        answer = self.call("get_object", **query)
        try:
            return self._accept(wanted, answer)
        except WrongRange as error:
            answer["Body"].close()
            raise Failed(of_boto(error)) from error

    def _accept(self, wanted: Wanted, answer: Mapping[str, Any]) -> BotoAnswer:
        status = int(answer["ResponseMetadata"]["HTTPStatusCode"])
        served = served_range(
            status, answer.get("ContentRange"), answer.get("ContentLength"), wanted.offset, wanted.length
        )
        self._endpoint.learn_ranges(status)
        info = describe(wanted.path, served.object_size, answer.get("ETag"), answer.get("LastModified"))
        return BotoAnswer(info, served.length, answer["Body"])

    def close(self) -> None:
        """Close idle connections."""
        self.client.close()


class BotoAnswer:
    """The answer to a GET of boto3."""

    def __init__(self, info: ObjectInfo, length: int, stream: Any) -> None:
        """Take botocore's stream of the body."""
        self.info: Final = info
        self.length: Final = length
        self._stream: Any = stream

    def read(self, size_max: int) -> memoryview:
        """Read from the socket; botocore's ``readinto`` would read into a buffer of its own and copy that."""
        try:
            return memoryview(self._stream.read(min(size_max, PIECE_BYTES)))
        except BOTO_FAILURES as error:
            raise Failed(of_boto(error)) from error

    def close(self) -> None:
        """Close the response; its connection goes back to the pool if the body was read to its end."""
        with contextlib.suppress(OSError):
            self._stream.close()


def _share_descriptions(session: Session) -> None:
    """Have botocore read its descriptions of services once a process, and not for each session again.

    That is 50 ms of processor time for S3's, and the memory that they take.
    """
    loader = session.get_component("data_loader")
    session.register_component("data_loader", _loaders.setdefault(tuple(loader.search_paths), loader))


def _config(options: Mapping[str, Any], timeout_s: float) -> Config:
    settings: dict[str, Any] = {}
    if options.get("endpoint_url"):
        # Otherwise boto3 sends a checksum trailer, which some servers store inside the object; and few of
        # them have host names for their buckets.
        settings = {
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "s3": {"addressing_style": "path"},
        }
    if options.get("anonymous"):
        settings["signature_version"] = botocore.UNSIGNED
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=timeout_s,
        # Trying again is ours, so that throttling is seen and all clients share one budget.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        **settings,
    )
