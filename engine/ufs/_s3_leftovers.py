"""What killed writes have left in a bucket, found by their notes and removed: uploads, and probes.

The id of an upload is known, and noted, only when the server has answered. A write that was killed in
between has noted the key, which uploads for that key there were before, and when that was by the server's
clock: what began between then and the last moment at which its request can have come is its own.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from forebay.ufs._s3_errors import Failed, Kind
from forebay.ufs.writer import Facts

if TYPE_CHECKING:
    from forebay.ufs.s3 import S3Storage

# Of the server's two clock readings, one of which is in whole seconds, and of servers that share a bucket.
_CLOCK_S: Final = 5.0


class Uploads(NamedTuple):
    """The uploads for one key, id -> when each began, and the server's time; None: it did not say."""

    began_s: dict[str, float]
    now_s: float | None


def uploads_of(storage: S3Storage, key: str) -> Uploads | None:
    """List the uploads for this very key; None: the server does not list them, or not to us, or not all."""

    def ask() -> dict[str, Any] | None:
        try:
            return storage.client().call("list_multipart_uploads", Prefix=key)
        except Failed as failed:
            if failed.failure.passing:
                raise
            # Said by some servers where there never was one.
            return {} if failed.failure.kind is Kind.NO_UPLOAD else None

    answer = storage.tries(storage.uri_of_key(key)).run(ask)
    if answer is None:
        return None
    found = {each["UploadId"]: each for each in answer.get("Uploads", ()) if each["Key"] == key}
    if answer.get("IsTruncated") and len(found) == len(answer["Uploads"]):
        return None
    return Uploads({name: _seconds(each.get("Initiated")) for name, each in found.items()}, date_of(answer))


def abort(storage: S3Storage, key: str, upload: str) -> None:
    """Abort an upload; one that is no more is as good."""

    def ask() -> None:
        try:
            storage.client().call("abort_multipart_upload", Key=key, UploadId=upload)
        except Failed as failed:
            if failed.failure.kind not in (Kind.NO_UPLOAD, Kind.ABSENT):
                raise

    storage.tries(storage.uri_of_key(key)).run(ask)


def abort_unanswered(storage: S3Storage, facts: Facts, kept: Container[str] = ()) -> None:
    """Abort the uploads that a write has begun without learning so, leaving alone those to be kept."""
    now = uploads_of(storage, facts["key"])
    if now is None or facts.get("known") is None:
        return
    began_s_max = None if facts.get("asked_s") is None else facts["asked_s"] + storage.deadline_s + _CLOCK_S
    for upload, began_s in now.began_s.items():
        is_new = upload not in facts["known"] and upload not in kept
        if is_new and (began_s_max is None or began_s <= began_s_max):
            abort(storage, facts["key"], upload)


def remove(storage: S3Storage, facts: Facts) -> None:
    """Remove all that the notes of a write tell of. Raises: as StorageWriter.undo."""
    if "probe" in facts:
        remove_probe(storage, facts["probe"])
    if facts.get("upload"):
        abort(storage, facts["key"], facts["upload"])
    elif "key" in facts:
        abort_unanswered(storage, facts)


def remove_probe(storage: S3Storage, key: str) -> None:
    """Remove an object that was made to try the server, and uploads for it: its name is nobody else's."""
    for upload in getattr(uploads_of(storage, key), "began_s", ()):
        abort(storage, key, upload)
    storage.tries(storage.uri_of_key(key)).run(lambda: storage.client().call("delete_object", Key=key))


def date_of(answer: Mapping[str, Any]) -> float | None:
    """Return the server's time in an answer, in seconds since 1970; None if it does not tell."""
    return _parsed(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))


# The answers of one second have the same.
@functools.lru_cache(maxsize=16)
def _parsed(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
