"""``s3://bucket/prefix``: S3 and its like, objects by obstore and everything else by boto3.

Credentials come from boto3's own chain (environment, profile, role), never from here. The version of an
object is its ETag. Keys with a part that is empty, ``.`` or ``..`` cannot be named by a path and are not
shown, but counted. Importing this module imports boto3, which takes some 36 MiB: it is imported when an
attached s3:// dataset is first asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from forebay.clock import NS_PER_S
from forebay.config import nearest
from forebay.errors import ConfigError, NotFound, not_found, stale, under_storage_error
from forebay.ufs import _s3_obstore
from forebay.ufs._s3_body import S3Body
from forebay.ufs._s3_boto import BotoClient
from forebay.ufs._s3_endpoint import endpoint_of
from forebay.ufs._s3_errors import Failed, Failure, Kind
from forebay.ufs._s3_get import Wanted, info_of
from forebay.ufs._s3_listing import Listing
from forebay.ufs._s3_names import is_marker, is_name
from forebay.ufs._s3_obstore import ObstoreClient
from forebay.ufs._s3_tries import Policy, Tries
from forebay.ufs._s3_walk import walk_keys
from forebay.ufs._s3_writer import S3StorageWriter
from forebay.ufs._stop import Stop
from forebay.ufs.base import (
    ObjectInfo,
    RangeBody,
    UnderStorage,
    check_options,
    refuse_embedded_credentials,
)

OPTIONS: Final = (
    "endpoint_url",
    "region",
    "profile",
    "anonymous",
    "timeout_s",
    "attempts",
    "requests_per_s",
    "client",
)

_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 4
_CLIENTS: Final = ("auto", "boto3")


class S3Storage(UnderStorage):
    """A bucket, or what lies under a prefix in it.

    Options: endpoint_url (a server other than AWS), region, profile (of the AWS configuration), anonymous
    (unsigned requests), timeout_s (how long a socket may be silent), attempts (for each request, and for each
    body), requests_per_s (what this process asks the server at most; of all datasets on it the lowest
    holds), client ("boto3" to do without obstore).
    """

    has_directories = False

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        """Check URI and options; connects to nothing. Raises: ConfigError."""
        options = {name: value for name, value in (options or {}).items() if value is not None}
        check_options("s3", options, OPTIONS)
        refuse_embedded_credentials(uri, "s3 URI")
        _check_endpoint(str(options.get("endpoint_url", "http://")))
        self.bucket, _, prefix = uri.partition("://")[2].partition("/")
        if not self.bucket:
            raise ConfigError(f"{uri}: no bucket; write s3://bucket or s3://bucket/prefix")
        prefix = prefix.strip("/")
        self._prefix: Final = f"{prefix}/" if prefix else ""
        self._options: Final = options
        self._policy: Final = Policy(
            int(_positive(options.get("attempts", _ATTEMPTS), "attempts")),
            _positive(options.get("timeout_s", _TIMEOUT_S), "timeout_s"),
        )
        self._use_obstore: Final = _client(options.get("client", "auto")) == "auto"
        # On AWS every bucket has a host name, and a rate, of its own.
        self.endpoint: Final = endpoint_of(
            str(options.get("endpoint_url", f"s3://{self.bucket}")).rstrip("/")
        )
        if "requests_per_s" in options:
            self.endpoint.throttle.limit(_positive(options["requests_per_s"], "requests_per_s"))
        self._lock: Final = threading.Lock()
        self._stop: Final = Stop()
        self._counts: Final = {"failed_requests": 0, "throttled": 0, "hidden_keys": 0}
        self._made: BotoClient | None = None
        self._made_fast: ObstoreClient | None = None
        self._fast_wanted = self._use_obstore

    def stat(self, path: str) -> ObjectInfo:
        """Ask for the object's head, and if there is none whether anything lies under the name."""
        absent = not_found(self.uri_of(path), "the bucket has nothing under this prefix")
        if path:
            try:
                return info_of(path, self.head(path))
            except NotFound as error:
                absent = error
        # A HEAD has no body to say that the very bucket is missing; a listing has.
        prefix = self.directory_prefix(path)
        if not self.listing(path, prefix).first_keys(1) and prefix:
            raise absent
        return ObjectInfo(path, 0, 0, "", is_dir=True)

    def head(self, path: str) -> dict[str, Any]:
        """Return the head of an object, as boto3 has it. Raises: as ``stat``, for a directory NotFound."""
        key = self.key_of(path)
        return self.tries(self.uri_of(path)).run(lambda: self._head(key))

    def _head(self, key: str) -> dict[str, Any]:
        try:
            return self.client().call("head_object", Key=key)
        except Failed as failed:
            if failed.failure.status == 400:
                # For the same want of a body; expired credentials are among what is answered so.
                self.client().call("list_objects_v2", Prefix=key, MaxKeys=1)
            raise

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """List one level, a request a page."""
        prefix = self.directory_prefix(path)
        parent = f"{path}/" if path else ""
        exists = not prefix
        for page in self.listing(path, prefix, "/").pages():
            exists = exists or bool(page.keys or page.prefixes)
            names = (name[len(prefix) :].removesuffix("/") for name in page.prefixes)
            shown = [ObjectInfo(parent + name, 0, 0, "", is_dir=True) for name in names if is_name(name)]
            hidden = len(page.prefixes) - len(shown)
            for key, size, modified_s, version in page.keys:
                name = key[len(prefix) :]
                if is_name(name):
                    shown.append(ObjectInfo(parent + name, size, modified_s * NS_PER_S, version))
                else:
                    hidden += not is_marker(name, size)
            if hidden:
                self._count("hidden_keys", hidden)
            yield shown
        if not exists:
            raise not_found(self.uri_of(path), "nothing lies under this name")

    def walk(self, path: str, prefix_workers: int = 8) -> Iterator[Sequence[ObjectInfo]]:
        """List all keys below by several requests at a time, each for a part of them."""
        slots = threading.Semaphore(prefix_workers)
        return walk_keys(
            self.listing(path, self.directory_prefix(path), slot=slots),
            f"{path}/" if path else "",
            prefix_workers,
            lambda count: self._count("hidden_keys", count),
        )

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """GET the range, with If-Match if a version is given."""
        return S3Body(self, Wanted(path, self.key_of(path), offset, length, version))

    def writer(self) -> S3StorageWriter:
        """Return what writes by boto3."""
        return S3StorageWriter(self)

    def counts(self) -> dict[str, int]:
        """Return all three; hidden keys are counted one by one by a walk, and by their first part by a list.

        Empty objects that mark directories are not counted.
        """
        return self._counts.copy()

    @property
    def requests_per_s(self) -> float | None:
        """The rate to which the server holds this process at the moment; None: none."""
        return self.endpoint.throttle.rate

    def close(self) -> None:
        """Close idle connections, and have no request tried again."""
        self._stop.set()
        made = self._forget_clients()
        if made is not None:
            made.close()

    def prepare(self) -> None:
        """Make the clients: tenths of a second of processor time for the first in a process."""
        self.client()
        self.fast_client()

    def client(self) -> BotoClient:
        """Return boto3's client, made at the first use."""
        made = self._made
        if made is None:
            # Making one is not safe from several threads, using one is.
            with self._lock:
                if self._made is None:
                    self._made = BotoClient(
                        self.bucket,
                        self._options,
                        self._policy.timeout_s,
                        self.endpoint,
                        lambda kind: self.on_request(kind),
                    )
                made = self._made
        return made

    def fast_client(self) -> ObstoreClient | None:
        """Return obstore's client, made at the first use; None if there is to be none."""
        made = self._made_fast
        if made is not None or not self._fast_wanted or not _s3_obstore.usable():
            return made
        boto = self.client()
        with self._lock:
            if self._made_fast is None and self._fast_wanted:
                self._made_fast = _s3_obstore.make_client(
                    boto, self._options, self._policy.timeout_s, self.endpoint
                )
                self._fast_wanted = self._made_fast is not None
            return self._made_fast

    def tries(self, uri: str, length: int = 0) -> Tries:
        """Return a new budget for an operation on uri that brings length bytes."""
        return Tries(self._policy, self.endpoint.throttle, self._note, self._stop, uri, length)

    def behind_the_end(self, wanted: Wanted) -> ObjectInfo:
        """Describe an object of which a range was refused: it begins at or behind the object's end."""
        info = self.stat(wanted.path)
        if wanted.version is not None and info.version != wanted.version:
            raise stale(self.uri_of(wanted.path), wanted.version, info.version)
        if info.is_dir or info.size > wanted.offset:
            cause = f"refused a range from byte {wanted.offset} on of an object of {info.size} bytes"
            raise under_storage_error(self.uri_of(wanted.path), cause)
        return info

    @property
    def deadline_s(self) -> float:
        """How long a request may take with all its attempts."""
        return self._policy.deadline_s(0)

    def uri_of(self, path: str) -> str:
        """Return the full URI of a path, for messages."""
        return self.uri_of_key(self._prefix + path)

    def uri_of_key(self, key: str) -> str:
        """Return the full URI of a key, for messages."""
        return f"s3://{self.bucket}/{key}"

    def _note(self, failure: Failure) -> None:
        """Count a failure; after credentials have expired the next request looks for new ones."""
        if failure.kind is Kind.ABSENT:
            return
        self._count("failed_requests", 1)
        if failure.kind is Kind.THROTTLED:
            self._count("throttled", 1)
        elif failure.kind is Kind.EXPIRED:
            self._forget_clients()

    def _count(self, name: str, count: int) -> None:
        with self._lock:
            self._counts[name] += count

    def _forget_clients(self) -> BotoClient | None:
        with self._lock:
            made, self._made = self._made, None
            self._made_fast, self._fast_wanted = None, self._use_obstore
        return made

    def listing(
        self,
        path: str,
        prefix: str,
        delimiter: str = "",
        slot: AbstractContextManager[object] | None = None,
    ) -> Listing:
        """Return what lists the keys that begin with a prefix; path is what errors name."""
        uri = self.uri_of(path)
        return Listing(self.client, lambda: self.tries(uri), uri, prefix, delimiter, slot)

    def key_of(self, path: str) -> str:
        """Return the key of the object at the path. Raises: NotFound (no key can be such a name)."""
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise not_found(self.uri_of(path), "no object can have this name: it is not UTF-8") from None
        return self._prefix + path

    def directory_prefix(self, path: str) -> str:
        """Return what the keys of all objects in the directory begin with."""
        return f"{self.key_of(path)}/" if path else self._prefix


def _check_endpoint(url: str) -> None:
    refuse_embedded_credentials(url, "endpoint_url")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"endpoint_url: {url!r} is no http:// or https:// URL")


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise ConfigError(f"{what}: {value!r} is no number of at least 1")
    return float(value)


def _client(value: object) -> str:
    if value not in _CLIENTS:
        raise ConfigError(f"client: {value!r}{nearest(str(value), _CLIENTS)}; it is {' or '.join(_CLIENTS)}")
    return str(value)
