"""The S3 server of _s3.py, which can be written to as well: PUT, DELETE, copies, and uploads in parts.

Exclusive creation, ETags and the list of uploads may each be as some server has them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from tests._s3 import BUCKET, FakeS3, Handler, Request, etag_of

_PART = re.compile(r"<PartNumber>([0-9]+)</PartNumber>")


@dataclass
class Upload:
    """One upload that is neither completed nor aborted."""

    key: str
    token: str
    began_s: float
    parts: dict[int, bytes] = field(default_factory=dict)


class WritableS3(FakeS3):
    """honours says whether If-None-Match is looked at in a PUT, and in the end of an upload."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = WritableHandler
        self.honours = {"PUT", "POST"}
        self.uploads: dict[str, Upload] = {}
        self.tokens: dict[str, str] = {}
        self.multipart_etags: dict[str, str] = {}
        self.numbers = itertools.count(1)
        # Requests with these words in their paths are cut off in the middle of their bodies, so often.
        self.cuts: dict[str, int] = {}

    def named(self, method: str, words: str = "") -> list[Request]:
        """Return the requests of a method so far that have these words in their path."""
        return [each for each in self.requests if each.method == method and words in each.path]


class WritableHandler(Handler):
    server: WritableS3
    body: bytes

    def lose(self) -> None:
        """Do what was asked, and close the connection without a word."""
        self.close_connection = True
        self.reply = lambda *_, **__: None  # type: ignore[method-assign]
        self._change()

    def drop(self) -> None:
        """Close the connection without a word, and do nothing."""
        self.close_connection = True

    def answer_change(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        for words, left in self.server.cuts.items():
            if words in self.path and left:
                self.server.cuts[words] -= 1
                self.rfile.read(length // 2)
                self.drop()
                return
        self.body = self.rfile.read(length)
        self.server.requests.append(
            Request(self.command, self.path, {name.title(): value for name, value in self.headers.items()})
        )
        interfere = self.server.interfere
        if interfere is None or interfere(self) is False:
            self._change()

    def _change(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = parts.path[1:].partition("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if bucket != BUCKET:
            self.refuse(404, "NoSuchBucket")
        elif "uploads" in query:
            self._begin(unquote(key))
        elif "uploadId" in query:
            self._go_on(unquote(key), query)
        elif self.command == "DELETE":
            self.server.objects.pop(unquote(key), None)
            self.server.changes += 1
            self.reply(204)
        else:
            self._put(unquote(key))

    def _is_refused(self, key: str) -> bool:
        """Refuse to create what is there, if that is asked for and looked at."""
        asked = self.headers.get("If-None-Match") == "*" and self.command in self.server.honours
        if asked and key in self.server.objects:
            self.refuse(412, "PreconditionFailed")
            return True
        return False

    def _put(self, key: str) -> None:
        source = self.headers.get("x-amz-copy-source")
        data = self.body if source is None else self.server.objects.get(unquote(source).split("/", 1)[1])
        if data is None:
            self.refuse(404, "NoSuchKey")
        elif not self._is_refused(key):
            self._store(key, data, self.headers.get("x-amz-meta-forebay-write", ""))
            result = f'<CopyObjectResult><ETag>"{etag_of(data)}"</ETag></CopyObjectResult>' if source else ""
            self.reply(200, result.encode(), ETag=f'"{etag_of(data)}"')

    def _store(self, key: str, data: bytes, token: str) -> None:
        self.server.objects[key] = data
        self.server.changes += 1
        self.server.tokens[key] = token
        self.server.multipart_etags.pop(key, None)

    def _begin(self, key: str) -> None:
        if self.command == "GET":
            self._list_uploads(key)
            return
        name = f"upload-{next(self.server.numbers)}"
        token = self.headers.get("x-amz-meta-forebay-write", "")
        self.server.uploads[name] = Upload(key, token, time.time())
        xml = "<InitiateMultipartUploadResult><UploadId>{}</UploadId></InitiateMultipartUploadResult>"
        self.reply(200, xml.format(name).encode())

    def _go_on(self, key: str, query: dict[str, str]) -> None:
        name = query["uploadId"]
        upload = self.server.uploads.get(name)
        if upload is None:
            self.refuse(404, "NoSuchUpload")
        elif self.command == "DELETE":
            del self.server.uploads[name]
            self.reply(204)
        elif self.command == "PUT":
            self._take_part(upload, int(query["partNumber"]))
        elif not self._is_refused(key):
            self._complete(name, upload)

    def _take_part(self, upload: Upload, number: int) -> None:
        data, source = self.body, self.headers.get("x-amz-copy-source")
        if source is not None:
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["x-amz-copy-source-range"])
            assert span is not None
            whole = self.server.objects[unquote(source).split("/", 1)[1]]
            data = whole[int(span[1]) : int(span[2]) + 1]
        upload.parts[number] = data
        result = f'<CopyPartResult><ETag>"{etag_of(data)}"</ETag></CopyPartResult>' if source else ""
        self.reply(200, result.encode(), ETag=f'"{etag_of(data)}"')

    def _complete(self, name: str, upload: Upload) -> None:
        numbers = [int(number) for number in _PART.findall(self.body.decode())]
        parts = [upload.parts[number] for number in numbers]
        digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
        etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        del self.server.uploads[name]
        self._store(upload.key, b"".join(parts), upload.token)
        self.server.multipart_etags[upload.key] = etag
        xml = '<CompleteMultipartUploadResult><ETag>"{}"</ETag></CompleteMultipartUploadResult>'
        self.reply(200, xml.format(etag).encode())

    def _answer(self) -> None:
        if "uploads" in dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True)):
            self.answer_change()
        else:
            super()._answer()

    def _list_uploads(self, key: str) -> None:
        prefix = dict(parse_qsl(urlsplit(self.path).query)).get("prefix", "")
        found = "".join(
            f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{name}</UploadId><Initiated>"
            f"{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(upload.began_s))}</Initiated></Upload>"
            for name, upload in self.server.uploads.items()
            if upload.key.startswith(prefix)
        )
        self.reply(200, f"<ListMultipartUploadsResult>{found}</ListMultipartUploadsResult>".encode())

    def object_headers(self, key: str, data: bytes) -> dict[str, str]:
        """Return what tells of an object: its own ETag, and the token that its writer gave it."""
        headers = super().object_headers(key, data)
        if key in self.server.multipart_etags:
            headers["ETag"] = f'"{self.server.multipart_etags[key]}"'
        if token := self.server.tokens.get(key):
            headers["x_amz_meta_forebay_write"] = token
        return headers
