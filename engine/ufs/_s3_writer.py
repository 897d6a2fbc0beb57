"""Writing to S3 by boto3: one PUT for what fits into a part, an upload in parts for what is larger.

A directory that is made is an empty object whose key ends in a slash, as consoles and other clients make it.
A rename is a copy by the server and a delete, and not one act.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from forebay.clock import NS_PER_S
from forebay.config import GIB
from forebay.errors import NotFound, UnderStorageError, already_there, stale, under_storage_error
from forebay.ufs import _s3_leftovers
from forebay.ufs._s3_errors import Failed, Kind
from forebay.ufs._s3_exclusive import exclusive_bytes_max
from forebay.ufs._s3_get import info_of, version_of
from forebay.ufs._s3_upload import OBJECT_BYTES_MAX, PART_BYTES, Token, Upload, part_bytes_of
from forebay.ufs.base import ObjectInfo
from forebay.ufs.payload import Payload
from forebay.ufs.writer import Facts, StorageWriter, WriteJob, Written

if TYPE_CHECKING:
    from forebay.ufs.s3 import S3Storage

# What S3 copies by one request.
_COPY_BYTES_MAX: Final = 5 * GIB
_COPY_PART_BYTES: Final = 512 << 20
_COPIED_HEADERS: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
)


class S3StorageWriter(StorageWriter):
    """Changes what lies under a prefix of a bucket."""

    def __init__(self, storage: S3Storage) -> None:
        """Change what this storage shows."""
        self._storage: Final = storage

    def put(self, path: str, payload: Payload, job: WriteJob, *, exclusive: bool = False) -> Written:
        """Send it by one request or by several; the version is that of the answer, once that is proven."""
        storage, key = self._storage, self._key(path)
        token = Token() if exclusive else None
        if payload.size > OBJECT_BYTES_MAX:
            raise under_storage_error(storage.uri_of(path), "larger than an object may be", errno.EFBIG)
        if payload.size > PART_BYTES:
            answer = self._put_parts(path, key, payload, job, token)
        else:
            answer = self._put_whole(path, key, payload, job, token)
        if answer is None:
            raise already_there(storage.uri_of(path))
        return self._written(path, payload.size, answer)

    def _put_whole(
        self, path: str, key: str, payload: Payload, job: WriteJob, token: Token | None
    ) -> dict[str, Any] | None:
        """Return the answer; None: exclusive, and there is an object."""
        query: dict[str, Any] = {"Key": key, "Body": payload.read(0, payload.size)}
        payload.check()
        if token is not None:
            query |= {"IfNoneMatch": "*", **token.query()}
        attempts = 0

        def send() -> dict[str, Any] | None:
            nonlocal attempts
            attempts += 1
            try:
                return self._storage.client().call("put_object", **query)
            except Failed as failed:
                if token is None or failed.failure.kind is not Kind.CHANGED:
                    raise
            # An earlier attempt whose answer was lost may have made the object that is there.
            with suppress(NotFound):
                if attempts > 1 and token.is_in(self._storage.head(path)):
                    return {}
            return None

        tries = self._storage.tries(self._storage.uri_of(path), payload.size)
        return job.run_all([(max(payload.size, 1), lambda: tries.run(send))])[0]

    def _put_parts(
        self, path: str, key: str, payload: Payload, job: WriteJob, token: Token | None
    ) -> dict[str, Any] | None:
        """Return the answer; None: exclusive, and there is an object."""

        def send(upload: str, number: int, offset: int, length: int) -> dict[str, Any]:
            body = payload.read(offset, length)
            query = {"Key": key, "UploadId": upload, "PartNumber": number, "Body": body}
            return self._storage.client().call("upload_part", **query)

        part_bytes = part_bytes_of(payload.size)
        upload = Upload(self._storage, path, key, job, query={}, token=token, check=payload.check)
        return upload.run(payload.size, part_bytes, part_bytes, send)

    def _written(self, path: str, size: int, answer: Mapping[str, Any]) -> Written:
        """Describe what was written, asking for it unless the server's answers to PUTs have proven right."""
        etag, endpoint = answer.get("ETag"), self._storage.endpoint
        is_one = size <= PART_BYTES
        if etag and is_one and endpoint.tells_etags:
            moment_s = int(_s3_leftovers.date_of(answer) or 0)
            return Written(ObjectInfo(path, size, moment_s * NS_PER_S, version_of(etag, 0, size)), True)
        info = info_of(path, self._storage.head(path))
        is_own = bool(etag) and (version_of(etag, 0, size), size) == (info.version, info.size)
        endpoint.tells_etags = endpoint.tells_etags or (is_own and is_one)
        return Written(info, is_own)

    def exclusive_bytes_max(self, path: str, job: WriteJob) -> int:
        """Try the server, unless it is AWS."""
        self._key(path)
        return exclusive_bytes_max(self._storage, path, job)

    def delete(self, path: str) -> None:
        """Look what there is, for S3 deletes what is absent without a word."""
        key = self._storage.key_of(path)
        if self._storage.stat(path).is_dir:
            key += "/"
            if any(each != key for each in self._storage.listing(path, key).first_keys(2)):
                uri = self._storage.uri_of(path)
                raise under_storage_error(uri, "is a directory that is not empty", errno.ENOTEMPTY)
        self._delete(key)

    def _delete(self, key: str) -> None:
        call = partial(self._call, "delete_object", Key=key)
        self._storage.tries(self._storage.uri_of_key(key)).run(call)

    def rename(self, path: str, target: str, job: WriteJob) -> ObjectInfo:
        """Have the server copy the object, look at the copy, and delete the object."""
        storage, target_key = self._storage, self._key(target)
        try:
            head = storage.head(path)
        except NotFound:
            if not storage.stat(path).is_dir:
                raise
            raise IsADirectoryError(errno.EISDIR, "is a directory", storage.uri_of(path)) from None
        info = info_of(path, head)
        source: dict[str, Any] = {"CopySource": {"Bucket": storage.bucket, "Key": storage.key_of(path)}}
        if head.get("ETag"):
            source["CopySourceIfMatch"] = head["ETag"]
        if info.size > _COPY_BYTES_MAX:
            self._copy_parts(info, head, target, target_key, source, job)
        else:
            copy = partial(self._copy, info, "copy_object", Key=target_key, **source)
            storage.tries(storage.uri_of(target), info.size).run(copy)
        copied = info_of(target, storage.head(target))
        if copied.size != info.size:
            cause = f"the copy has {copied.size} bytes, not {info.size}; nothing was deleted"
            raise under_storage_error(storage.uri_of(target), cause)
        self._delete(storage.key_of(path))
        return copied

    def _copy_parts(
        self,
        info: ObjectInfo,
        head: Mapping[str, Any],
        target: str,
        target_key: str,
        source: Mapping[str, Any],
        job: WriteJob,
    ) -> None:
        def send(upload: str, number: int, offset: int, length: int) -> Mapping[str, Any]:
            part = {"Key": target_key, "UploadId": upload, "PartNumber": number}
            span = f"bytes={offset}-{offset + length - 1}"
            answer = self._copy(info, "upload_part_copy", CopySourceRange=span, **part, **source)
            return dict(answer["CopyPartResult"])

        query = {name: head[name] for name in _COPIED_HEADERS if name in head}
        part_bytes = max(_COPY_PART_BYTES, part_bytes_of(info.size))
        Upload(self._storage, target, target_key, job, query=query).run(info.size, part_bytes, 1, send)

    def _copy(self, info: ObjectInfo, operation: str, **query: Any) -> dict[str, Any]:
        try:
            return self._call(operation, **query)
        except Failed as failed:
            if failed.failure.kind is not Kind.CHANGED:
                raise
            raise stale(self._storage.uri_of(info.path), info.version, "another") from failed

    def mkdir(self, path: str) -> None:
        """Write the directory's marker, and see that the server takes it for one."""
        key, uri = f"{self._key(path)}/", self._storage.uri_of(path)
        with suppress(NotFound):
            if not self._storage.stat(path).is_dir:
                raise already_there(uri, "an object has this name")
            return
        self._storage.tries(uri).run(partial(self._call, "put_object", Key=key, Body=b""))
        try:
            is_directory = self._storage.stat(path).is_dir
        except NotFound:
            is_directory = False
        if not is_directory:
            self._delete(key)
            cause = "this server keeps no empty directories; they come with the objects in them"
            raise under_storage_error(uri, cause, errno.EOPNOTSUPP)

    def undo(self, facts: Facts) -> None:
        """Abort uploads, and remove what the server was tried with."""
        _s3_leftovers.remove(self._storage, facts)

    def _call(self, operation: str, **query: Any) -> dict[str, Any]:
        return self._storage.client().call(operation, **query)

    def _key(self, path: str) -> str:
        """Return the key that is to be written. Raises: UnderStorageError (no key can be such a name)."""
        try:
            return self._storage.key_of(path)
        except NotFound as error:
            raise UnderStorageError(errno.EILSEQ, error.strerror, error.filename) from None
