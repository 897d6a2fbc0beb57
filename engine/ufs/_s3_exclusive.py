"""Whether a server creates objects exclusively: honours ``If-None-Match: *`` where it matters.

AWS documents that it does. Others may ignore the header, and then write over what is there: each is tried
once a process and bucket, with an object of our own beside the one that is to be written.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from forebay.ufs import _s3_leftovers
from forebay.ufs._s3_errors import Failed, Kind
from forebay.ufs._s3_upload import OBJECT_BYTES_MAX, PART_BYTES
from forebay.ufs.writer import WriteJob

if TYPE_CHECKING:
    from forebay.ufs.s3 import S3Storage

_NAME: Final = ".forebay-probe-"


def exclusive_bytes_max(storage: S3Storage, path: str, job: WriteJob) -> int:
    """Return as StorageWriter.exclusive_bytes_max: nothing, one part, or as much as an object may have."""
    known = storage.endpoint.exclusive_bytes_max
    if storage.bucket not in known:
        known[storage.bucket] = OBJECT_BYTES_MAX if storage.client().is_aws else _try(storage, path, job)
    return known[storage.bucket]


def _try(storage: S3Storage, path: str, job: WriteJob) -> int:
    """Ask for what has to be refused: to create an object that is there."""
    key = f"{storage.directory_prefix(path.rpartition('/')[0])}{_NAME}{secrets.token_hex(8)}"
    job.note(probe=key)

    def call(operation: str, **query: Any) -> dict[str, Any]:
        return storage.client().call(operation, Key=key, **query)

    def run(request: Callable[[], Any]) -> Any:
        return storage.tries(storage.uri_of_key(key)).run(request)

    def is_refused(operation: str, **query: Any) -> bool:
        def ask() -> bool:
            try:
                call(operation, IfNoneMatch="*", **query)
            except Failed as failed:
                if failed.failure.passing:
                    raise
                return failed.failure.kind is Kind.CHANGED
            return False

        return bool(run(ask))

    try:
        run(lambda: call("put_object", Body=b""))
        if not is_refused("put_object", Body=b""):
            return 0
        upload = run(lambda: call("create_multipart_upload"))["UploadId"]
        part = run(lambda: call("upload_part", UploadId=upload, PartNumber=1, Body=b"x"))
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        is_whole = is_refused("complete_multipart_upload", UploadId=upload, MultipartUpload=parts)
        return OBJECT_BYTES_MAX if is_whole else PART_BYTES
    finally:
        try:
            _s3_leftovers.remove_probe(storage, key)
        except OSError:
            job.leave()
