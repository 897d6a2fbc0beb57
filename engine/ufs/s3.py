"""``s3://bucket/prefix``: S3 and its like, by boto3.

Credentials come from boto3's own chain (environment, profile, role), never from here. The version of an
object is its ETag. Keys with a part that is empty, ``.`` or ``..`` cannot be named by a path and are not
shown. Importing this module imports boto3, which takes some 36 MiB: it is imported when an attached s3://
dataset is first asked.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ProfileNotFound

from forebay.clock import NS_PER_S
from forebay.errors import ConfigError, NotFound, not_found, stale, under_storage_error
from forebay.ufs._http_range import WrongRange, served_range
from forebay.ufs._s3_errors import FAILURES, status_of, translate
from forebay.ufs.base import (
    ObjectInfo,
    RangeBody,
    UnderStorage,
    check_options,
    refuse_embedded_credentials,
)

OPTIONS: Final = ("endpoint_url", "region", "profile", "anonymous", "timeout_s", "attempts")

_CONNECT_TIMEOUT_S: Final = 5.0
_READ_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 4
_CONNECTIONS: Final = 64
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_READ_BYTES: Final = 256 << 10


class S3Storage(UnderStorage):
    """A bucket, or what lies under a prefix in it.

    Options: endpoint_url (a server other than AWS), region, profile (of the AWS configuration), anonymous
    (unsigned requests), timeout_s (for one read of a socket), attempts (for each request, and for each
    body).
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        """Check URI and options; connects to nothing. Raises: ConfigError."""
        options = {name: value for name, value in (options or {}).items() if value is not None}
        check_options("s3", options, OPTIONS)
        refuse_embedded_credentials(uri, "s3 URI")
        _check_endpoint(str(options.get("endpoint_url", "http://")))
        self._bucket, _, prefix = uri.partition("://")[2].partition("/")
        if not self._bucket:
            raise ConfigError(f"{uri}: no bucket; write s3://bucket or s3://bucket/prefix")
        prefix = prefix.strip("/")
        self._prefix: Final = f"{prefix}/" if prefix else ""
        self._options: Final = options
        self._attempts: Final = int(_positive(options.get("attempts", _ATTEMPTS), "attempts"))
        self._timeout_s: Final = _positive(options.get("timeout_s", _READ_TIMEOUT_S), "timeout_s")
        self._lock: Final = threading.Lock()
        self._made_client: Any = None

    def stat(self, path: str) -> ObjectInfo:
        """Ask for the object's head, and if there is none whether anything lies under the name."""
        if path:
            try:
                head = self._call(path, "head_object", Key=self._key(path))
            except NotFound as error:
                return self._stat_directory(path, error)
            return _info(path, head, int(head["ContentLength"]))
        return self._stat_directory(
            path, not_found(self._uri(path), "the bucket has nothing under this prefix")
        )

    def _stat_directory(self, path: str, absent: NotFound) -> ObjectInfo:
        """Answer for a directory.

        A HEAD has no body to say that the very bucket is missing; a listing has.
        """
        answer = self._call(path, "list_objects_v2", Prefix=self._directory_prefix(path), MaxKeys=1)
        if not answer.get("Contents") and (path or self._prefix):
            raise absent
        return ObjectInfo(path, 0, 0, "", is_dir=True)

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """List one level, a request a page."""
        prefix = self._directory_prefix(path)
        query: dict[str, Any] = {"Prefix": prefix, "Delimiter": "/"}
        exists = not prefix
        seen_tokens = set()
        while True:
            answer = self._call(path, "list_objects_v2", **query)
            exists = exists or bool(answer.get("Contents") or answer.get("CommonPrefixes"))
            yield list(_page(path, prefix, answer))
            if not answer.get("IsTruncated"):
                break
            token = answer.get("NextContinuationToken")
            if not token or token in seen_tokens:
                raise under_storage_error(
                    self._uri(path), "the listing was cut short: no new continuation token"
                )
            seen_tokens.add(token)
            query["ContinuationToken"] = token
        if not exists:
            raise not_found(self._uri(path), "nothing lies under this name")

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """GET the range, with If-Match if a version is given."""
        return _S3Body(self, path, offset, length, version)

    def get(self, path: str, offset: int, length: int, version: str | None) -> tuple[ObjectInfo, int, Any]:
        """Send one GET. Returns the object, the number of bytes that come, and botocore's stream of them.

        Raises: as read_range; UnderStorageError where the answer is not the range that was asked for.
        """
        query = {"Key": self._key(path), "Range": f"bytes={offset}-{offset + length - 1}"}
        if version and not version.startswith("W/"):
            query["IfMatch"] = f'"{version}"'
        try:
            answer = self._client().get_object(Bucket=self._bucket, **query)
        except FAILURES as error:
            if status_of(error) == 416:
                return self._behind_the_end(path, offset, version)
            if status_of(error) == 412:
                raise stale(self._uri(path), version or "", "another") from error
            raise translate(error, self._uri(path)) from error
        try:
            return self._accept(path, answer, offset, length, version)
        except BaseException:
            answer["Body"].close()
            raise

    def _accept(
        self, path: str, answer: Mapping[str, Any], offset: int, length: int, version: str | None
    ) -> tuple[ObjectInfo, int, Any]:
        status = int(answer["ResponseMetadata"]["HTTPStatusCode"])
        try:
            served = served_range(
                status, answer.get("ContentRange"), answer.get("ContentLength"), offset, length
            )
        except WrongRange as error:
            raise under_storage_error(self._uri(path), str(error)) from error
        info = _info(path, answer, served.object_size)
        # Not every server looks at If-Match.
        if version is not None and info.version != version:
            raise stale(self._uri(path), version, info.version)
        return info, served.length, answer["Body"]

    def _behind_the_end(self, path: str, offset: int, version: str | None) -> tuple[ObjectInfo, int, Any]:
        """Answer a range that cannot be satisfied: it begins at or behind the object's end."""
        info = self.stat(path)
        if version is not None and info.version != version:
            raise stale(self._uri(path), version, info.version)
        if info.is_dir or info.size > offset:
            cause = f"refused a range from byte {offset} on of an object of {info.size} bytes"
            raise under_storage_error(self._uri(path), cause)
        return info, 0, None

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            client, self._made_client = self._made_client, None
        if client is not None:
            client.close()

    @property
    def attempts(self) -> int:
        """How often a body is begun anew before its reader is told."""
        return self._attempts

    def uri_of(self, path: str) -> str:
        """Return the full URI of a path, for messages."""
        return self._uri(path)

    def _uri(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{path}"

    def _key(self, path: str) -> str:
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise not_found(self._uri(path), "no object can have this name: it is not UTF-8") from None
        return self._prefix + path

    def _directory_prefix(self, path: str) -> str:
        return f"{self._key(path)}/" if path else self._prefix

    def _call(self, path: str, operation: str, **query: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client(), operation)(Bucket=self._bucket, **query)
        except FAILURES as error:
            raise translate(error, self._uri(path)) from error
        return answer

    def _client(self) -> Any:
        client = self._made_client
        if client is None:
            # Making one is not safe from several threads, using one is.
            with self._lock:
                client = self._made_client = self._made_client or self._make_client()
        return client

    def _make_client(self) -> Any:
        try:
            session = boto3.Session(
                profile_name=self._options.get("profile"), region_name=self._options.get("region")
            )
        except ProfileNotFound as error:
            raise ConfigError(f"s3://{self._bucket}: {error}") from error
        endpoint_url = self._options.get("endpoint_url")
        settings: dict[str, Any] = {}
        if endpoint_url:
            # Otherwise boto3 sends a checksum trailer, which some servers store inside the object; and few of
            # them have host names for their buckets.
            settings = {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
                "s3": {"addressing_style": "path"},
            }
        if self._options.get("anonymous"):
            settings["signature_version"] = botocore.UNSIGNED
        config = Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=self._timeout_s,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            **settings,
        )
        return session.client("s3", endpoint_url=endpoint_url, config=config)


class _S3Body(RangeBody):
    """The body of one ranged GET, begun anew where it broke off."""

    def __init__(self, storage: S3Storage, path: str, offset: int, length: int, version: str | None) -> None:
        self._storage = storage
        self._path = path
        self._uri = storage.uri_of(path)
        self.offset = offset
        self.info, self.length, self._stream = storage.get(path, offset, length, version)
        self._done = 0

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        """Read, resuming after a broken or silent connection as often as the storage's attempts allow."""
        for attempt in range(1, self._storage.attempts + 1):
            try:
                self._drain(buffer, progress)
                return
            except FAILURES as error:
                self.close()
                if attempt == self._storage.attempts:
                    raise translate(error, self._uri) from error
            # Full jitter: readers that broke off together do not come back together.
            time.sleep(random.uniform(0, min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt)))
            self._resume(len(buffer) - self._done)

    def _drain(self, buffer: memoryview, progress: Callable[[], None]) -> None:
        while self._done < len(buffer):
            part = buffer[self._done : self._done + _READ_BYTES]
            count = self._stream.readinto(part)
            if not count:
                raise under_storage_error(self._uri, f"the body ended {len(buffer) - self._done} bytes early")
            self._done += count
            progress()

    def _resume(self, left: int) -> None:
        _, length, self._stream = self._storage.get(
            self._path, self.offset + self._done, left, self.info.version
        )
        if length != left:
            raise under_storage_error(self._uri, f"asked for the last {left} bytes of a range, got {length}")

    def close(self) -> None:
        """Close the response; its connection goes back to the pool if the body was read to its end."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _check_endpoint(url: str) -> None:
    refuse_embedded_credentials(url, "endpoint_url")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"endpoint_url: {url!r} is no http:// or https:// URL")


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise ConfigError(f"{what}: {value!r} is no number of at least 1")
    return float(value)


def _page(path: str, prefix: str, answer: Mapping[str, Any]) -> Iterator[ObjectInfo]:
    """Yield what a page of a listing shows, leaving out what no path can name."""
    parent = f"{path}/" if path else ""
    for item in answer.get("CommonPrefixes", ()):
        name = item["Prefix"][len(prefix) :].removesuffix("/")
        if _is_name(name):
            yield ObjectInfo(parent + name, 0, 0, "", is_dir=True)
    for item in answer.get("Contents", ()):
        name = item["Key"][len(prefix) :]
        if _is_name(name):
            yield _info(parent + name, item, int(item["Size"]))


def _is_name(name: str) -> bool:
    """Say whether a path can have this part: a slash in it comes from a server without delimiters."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _info(path: str, answer: Mapping[str, Any], size: int) -> ObjectInfo:
    """Describe an object from a listing or a response's headers; both have to give the same version."""
    modified: datetime | None = answer.get("LastModified")
    # Listings give milliseconds, headers seconds.
    modified_s = int(modified.timestamp()) if modified else 0
    version = str(answer.get("ETag", "")).replace('"', "") or f"{modified_s}-{size}"
    return ObjectInfo(path, size, modified_s * NS_PER_S, version)
