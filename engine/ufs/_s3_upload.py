"""One upload in parts: begun, filled by several requests at a time, completed or aborted.

It is never left behind. What it is found by is noted before anything is at the server: first the key, then
the upload's id (see _s3_leftovers). An upload that vanishes meanwhile, because somebody else aborted it,
begins anew, once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from forebay.config import MIB
from forebay.errors import NotFound, under_storage_error
from forebay.ufs import _s3_leftovers
from forebay.ufs._s3_errors import Failed, Kind
from forebay.ufs._s3_get import version_of
from forebay.ufs.writer import WriteJob

if TYPE_CHECKING:
    from forebay.ufs.s3 import S3Storage

PART_BYTES: Final = 8 * MIB
OBJECT_BYTES_MAX: Final = 5 << 40
_PARTS_MAX: Final = 10_000
# What of the answer to a part goes into the last request.
_PROOFS: Final = (
    "ETag",
    "ChecksumCRC32",
    "ChecksumCRC32C",
    "ChecksumCRC64NVME",
    "ChecksumSHA1",
    "ChecksumSHA256",
)
# Metadata of an object that was created exclusively, by which its creator knows it.
_TOKEN_NAME: Final = "forebay-write"

# Upload's id, part's number, offset and length -> the answer's ETag and checksums.
SendPart = Callable[[str, int, int, int], Mapping[str, Any]]


class _Vanished(Exception):  # noqa: N818  (a signal within this module, not an error)
    """The server knows nothing of the upload."""


@dataclass
class Token:
    """What an exclusive write puts into the object's metadata.

    A server that created the object, but whose answer was lost, refuses the second attempt: the object's
    token then says whose it is.
    """

    text: str = field(default_factory=lambda: secrets.token_hex(16))

    def query(self) -> dict[str, Any]:
        """Return what sends it along."""
        return {"Metadata": {_TOKEN_NAME: self.text}}

    def is_in(self, head: Mapping[str, Any]) -> bool:
        """Say whether an object has it."""
        metadata = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
        return metadata.get(_TOKEN_NAME) == self.text


def part_bytes_of(size: int) -> int:
    """Return the length of an upload's parts, the last of which may be shorter."""
    least = -(-size // _PARTS_MAX)
    return PART_BYTES if least <= PART_BYTES else -(-least // MIB) * MIB


class Upload:
    """Writes one object in parts."""

    def __init__(
        self,
        storage: S3Storage,
        path: str,
        key: str,
        job: WriteJob,
        *,
        query: Mapping[str, Any],
        token: Token | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; query is what beginning it takes, check is called before it is completed."""
        self._storage: Final = storage
        self._path: Final = path
        self._uri: Final = storage.uri_of(path)
        self._key: Final = key
        self._job: Final = job
        self._query: Final = {**query, **(token.query() if token else {})}
        self._token: Final = token
        self._check: Final = check
        self._has_failed = False
        self._completions = 0

    def run(self, size: int, part_bytes: int, held: int, send: SendPart) -> dict[str, Any] | None:
        """Write size bytes and return the last answer; None: there is an object, and there must be none.

        held: bytes that a part holds in memory while it is sent.
        """
        for _ in range(2):
            with suppress(_Vanished):
                return self._run_once(size, part_bytes, held, send)
        raise under_storage_error(self._uri, "the upload was aborted by somebody else, twice")

    def _run_once(self, size: int, part_bytes: int, held: int, send: SendPart) -> dict[str, Any] | None:
        self._has_failed, self._completions = False, 0
        facts, upload, was_doubtful = self._begin()
        try:
            parts = self._fill(upload, size, part_bytes, held, send)
            self._check()
            answer = self._complete(upload, parts)
            if answer is None:
                self._abort(upload)
            return answer
        except BaseException as error:
            self._has_failed = True
            if not isinstance(error, _Vanished):
                self._abort(upload)
            if not isinstance(error, Exception):
                # Parts may still be on their way, and arrive after it was aborted.
                self._job.leave()
            raise
        finally:
            if was_doubtful:
                self._abort_others(facts, upload)

    def _begin(self) -> tuple[dict[str, Any], str, bool]:
        """Return what was noted, the upload's id, and whether there may be another that nobody knows of."""
        known = _s3_leftovers.uploads_of(self._storage, self._key)
        facts: dict[str, Any] = {"key": self._key, "upload": None}
        if known is not None:
            facts |= {"known": list(known.began_s), "asked_s": known.now_s}
        self._job.note(**facts)
        attempts = 0

        def create() -> dict[str, Any]:
            nonlocal attempts
            attempts += 1
            return self._storage.client().call("create_multipart_upload", Key=self._key, **self._query)

        answer = self._storage.tries(self._uri).run(create)
        self._job.note(upload=answer["UploadId"])
        return facts, answer["UploadId"], attempts > 1

    def _fill(
        self, upload: str, size: int, part_bytes: int, held: int, send: SendPart
    ) -> list[dict[str, Any]]:
        tasks = [
            (
                held,
                partial(self._send, send, upload, number, offset, min(part_bytes, size - offset)),
            )
            for number, offset in enumerate(range(0, size, part_bytes), start=1)
        ]
        return self._job.run_all(tasks)

    def _send(self, send: SendPart, upload: str, number: int, offset: int, length: int) -> dict[str, Any]:
        """Send a part as often as it takes; once one has failed in the end, the others are not begun."""
        if self._has_failed:
            return {}

        def ask() -> Mapping[str, Any]:
            try:
                return send(upload, number, offset, length)
            except Failed as failed:
                if failed.failure.kind is Kind.NO_UPLOAD:
                    raise _Vanished from failed
                raise

        try:
            answer = self._storage.tries(self._uri, length).run(ask)
        except BaseException:
            self._has_failed = True
            raise
        return {"PartNumber": number, **{name: answer[name] for name in _PROOFS if name in answer}}

    def _complete(self, upload: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        query: dict[str, Any] = {"UploadId": upload, "MultipartUpload": {"Parts": list(parts)}}
        if self._token is not None:
            query["IfNoneMatch"] = "*"

        def ask() -> dict[str, Any] | None:
            self._completions += 1
            try:
                return self._storage.client().call("complete_multipart_upload", Key=self._key, **query)
            except Failed as failed:
                kind = failed.failure.kind
                is_refused = self._token is not None and kind is Kind.CHANGED
                if (is_refused or kind is Kind.NO_UPLOAD) and self._was_completed(parts):
                    return {}
                if is_refused:
                    return None
                if kind is Kind.NO_UPLOAD:
                    raise _Vanished from failed
                raise

        return self._storage.tries(self._uri).run(ask)

    def _was_completed(self, parts: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether an earlier attempt, whose answer was lost, has completed it after all."""
        if self._completions < 2:
            return False
        try:
            head = self._storage.head(self._path)
        except NotFound:
            return False
        if self._token is not None:
            return self._token.is_in(head)
        return version_of(head.get("ETag"), 0, 0) == _etag_of(parts)

    def _abort(self, upload: str) -> None:
        try:
            _s3_leftovers.abort(self._storage, self._key, upload)
        except OSError:
            # Whoever opens the cache next goes on with it.
            self._job.leave()

    def _abort_others(self, facts: Mapping[str, Any], upload: str) -> None:
        try:
            _s3_leftovers.abort_unanswered(self._storage, facts, kept=(upload,))
        except OSError:
            self._job.leave()


def _etag_of(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return the ETag that most servers give an object of these parts, "" if theirs are no digests."""
    try:
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
