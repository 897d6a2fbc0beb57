"""The operations of WebHDFS, each a few lines over the HDFS-style API."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from forebay.api.hadoop.paths import normalized, parent_of
from forebay.api.hadoop.status import FileStatus
from forebay.api.hdfs import FileSystem
from forebay.api.webhdfs import forms
from forebay.api.webhdfs.bodies import FileBody, ListingBody, Threads, first_of, take_body
from forebay.api.webhdfs.guard import Act
from forebay.api.webhdfs.limits import GatewayLimits
from forebay.api.webhdfs.query import Query
from forebay.errors import not_found

_BYTES: Final = "application/octet-stream"
_PAGE: Final = 1_000
# Says that the client was sent here, and is to be sent nowhere else.
_HERE: Final = "data"


@dataclass(frozen=True)
class Asked:
    """One request, and what answers it. own: HOST:PORT of this gateway as others are told, "" without."""

    request: Request
    query: Query
    path: str
    fs: FileSystem
    threads: Threads
    limits: GatewayLimits
    own: str

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return what a call that may wait returns."""
        return await self.threads.run(call)

    @property
    def is_here(self) -> bool:
        """Whether the client was sent to this gateway."""
        return self.query.flag(_HERE)

    def location(self, authority: str = "") -> str:
        """Return where the client is to send the same again, its query included."""
        url = self.request.url
        given = QueryParams(self.request.scope["query_string"]).multi_items()
        pairs = [*(pair for pair in given if pair[0].lower() != _HERE), (_HERE, "true")]
        raw_path = self.request.scope["raw_path"].decode("ascii")
        query = urlencode(pairs, errors="surrogateescape")
        return f"{url.scheme}://{authority or url.netloc}{raw_path}?{query}"

    def sent_to(self, location: str) -> Response:
        """Answer that the client is to go there: by a redirect, unless it wants to be told."""
        if self.query.flag("noredirect"):
            return _json({"Location": location})
        return Response(status_code=307, headers={"location": location}, media_type=_BYTES)


Handler = Callable[[Asked], Awaitable[Response]]


async def open_file(asked: Asked) -> Response:
    """OPEN: bytes of a file, from this gateway or by who answers for them."""
    query = asked.query
    offset, length = query.number("offset", 0) or 0, query.number("length")
    # Most files are known, and opened without a wait: a thread would cost more than all the rest.
    stream = asked.fs.open_known(asked.path) or await asked.run(partial(asked.fs.open, asked.path))
    if offset > stream.length:
        stream.close()
        raise OSError(f"offset {offset} is behind the end of {asked.path}: it has {stream.length} bytes")
    if not asked.is_here:
        where = await asked.run(partial(_gateway_of, asked, offset)) if _may_be_sent_away(asked) else ""
        if where or query.flag("noredirect"):
            stream.close()
            return asked.sent_to(asked.location(where))
    left = stream.length - offset
    return FileBody(
        stream, offset, left if length is None else min(length, left), asked.threads, asked.limits.stall_s
    )


async def get_file_status(asked: Asked) -> Response:
    """GETFILESTATUS."""
    return _text(forms.file_status(await asked.run(partial(asked.fs.get_file_status, asked.path))))


async def list_status(asked: Asked) -> Response:
    """LISTSTATUS: all of a directory, sent as it is read."""
    status = await asked.run(partial(asked.fs.get_file_status, asked.path))
    if not status.is_directory:
        return _text(forms.full_listing(forms.status_text(status, "")))
    listing = await asked.run(partial(asked.fs.list_status_iterator, asked.path))
    first = await first_of(listing, asked.threads)
    if not first:
        return _text(forms.full_listing(""))
    if asked.request.scope["http_version"] == "1.0":
        raise io.UnsupportedOperation("LISTSTATUS is sent in chunks: ask by HTTP/1.1, or by LISTSTATUS_BATCH")
    return ListingBody(first, listing, asked.threads, asked.limits.stall_s)


async def list_status_batch(asked: Asked) -> Response:
    """LISTSTATUS_BATCH: a thousand behind a name."""
    after = asked.query.text("startafter", "")

    def page() -> bytes:
        status = asked.fs.get_file_status(asked.path)
        if not status.is_directory:
            return forms.partial_listing(forms.status_text(status, ""), has_more=False)
        found = list(islice(asked.fs.list_status_iterator(asked.path, after), _PAGE + 1))
        return forms.partial_listing(forms.statuses_text(found[:_PAGE]), has_more=len(found) > _PAGE)

    return _text(await asked.run(page))


async def get_content_summary(asked: Asked) -> Response:
    """GETCONTENTSUMMARY."""
    summary = await asked.run(partial(asked.fs.get_content_summary, asked.path))
    return _json(forms.content_summary(summary))


async def get_file_checksum(asked: Asked) -> Response:
    """GETFILECHECKSUM: all of the file is read."""
    if asked.query.flag("noredirect") and not asked.is_here:
        return asked.sent_to(asked.location())
    checksum = await asked.run(partial(asked.fs.get_file_checksum, asked.path))
    return _json(forms.file_checksum(checksum))


async def get_home_directory(asked: Asked) -> Response:
    """GETHOMEDIRECTORY."""
    return _json({"Path": asked.fs.get_home_directory()})


async def get_trash_root(asked: Asked) -> Response:
    """GETTRASHROOT."""
    return _json({"Path": asked.fs.get_trash_root(asked.path)})


async def get_server_defaults(asked: Asked) -> Response:
    """GETSERVERDEFAULTS."""
    return _json(forms.server_defaults(asked.fs.get_server_defaults()))


async def get_file_block_locations(asked: Asked) -> Response:
    """GETFILEBLOCKLOCATIONS."""
    _, locations = await asked.run(partial(_locations, asked))
    return _json(forms.block_locations(locations))


async def get_block_locations(asked: Asked) -> Response:
    """GET_BLOCK_LOCATIONS."""
    status, locations = await asked.run(partial(_locations, asked))
    return _json(forms.located_blocks(status, locations))


async def check_access(asked: Asked) -> Response:
    """CHECKACCESS."""
    await asked.run(partial(asked.fs.access, asked.path, asked.query.text("fsaction")))
    return Response()


async def create(asked: Asked) -> Response:
    """CREATE, in two steps: the first is told where to send the bytes, so that they are sent once."""
    overwrite = asked.query.flag("overwrite")
    has_to_be_made = asked.query.flag("createparent", default=True)
    _check_body(asked)

    def begin() -> Any:
        if not has_to_be_made and not asked.fs.exists(parent_of(asked.path)):
            raise not_found(parent_of(asked.path), "no such directory, and createparent is false")
        return asked.fs.create(asked.path, overwrite)

    stream = await asked.run(begin)
    if not asked.is_here:
        stream.abort()
        return asked.sent_to(asked.location())
    await take_body(asked.request, stream, asked.threads, asked.limits.stall_s)
    return Response(status_code=201, headers={"location": asked.location()}, media_type=forms.JSON)


async def append(asked: Asked) -> Response:
    """APPEND, in two steps as CREATE."""
    _check_body(asked)
    if not asked.is_here:
        status = await asked.run(partial(asked.fs.get_file_status, asked.path))
        if status.is_directory:
            raise not_found(asked.path, "is a directory")
        await asked.run(partial(asked.fs.access, asked.path, "w"))
        return asked.sent_to(asked.location())
    stream = await asked.run(partial(asked.fs.append, asked.path))
    await take_body(asked.request, stream, asked.threads, asked.limits.stall_s)
    return Response()


async def mkdirs(asked: Asked) -> Response:
    """MKDIRS."""
    return _boolean(await asked.run(partial(asked.fs.mkdirs, asked.path)))


async def rename(asked: Asked) -> Response:
    """RENAME; with options, as Hadoop has it, nothing is said but by an exception."""
    options, target = asked.query.text("renameoptions", "").upper(), asked.query.text("destination")
    if options not in ("", "NONE"):
        raise io.UnsupportedOperation("renameoptions: a target that is there is never replaced")
    if options:
        await asked.run(partial(asked.fs.rename_exactly, asked.path, target))
        return Response()
    return _boolean(await asked.run(partial(asked.fs.rename, asked.path, target)))


async def delete(asked: Asked) -> Response:
    """DELETE."""
    recursive = asked.query.flag("recursive")
    return _boolean(await asked.run(partial(asked.fs.delete, asked.path, recursive)))


async def set_replication(asked: Asked) -> Response:
    """SETREPLICATION."""
    replication = asked.query.number("replication", 1) or 0
    return _boolean(await asked.run(partial(asked.fs.set_replication, asked.path, replication)))


async def set_times(asked: Asked) -> Response:
    """SETTIMES."""
    await asked.run(partial(asked.fs.set_times, asked.path, *asked.query.times()))
    return Response()


def _locations(asked: Asked) -> tuple[FileStatus, Any]:
    status = asked.fs.get_file_status(asked.path)
    offset, length = asked.query.number("offset", 0) or 0, asked.query.number("length")
    return status, asked.fs.get_file_block_locations(status, offset, length)


def _may_be_sent_away(asked: Asked) -> bool:
    """Say whether a client may be sent to another host: on the way there it would lose its token."""
    if not asked.own:
        return False
    return "authorization" not in asked.request.headers or asked.query.flag("noredirect")


def _gateway_of(asked: Asked, offset: int) -> str:
    """Return the gateway of the group that answers for what lies there, "" if it is this one, or none."""
    found = asked.fs.get_file_block_locations(asked.path, offset, 1)
    excluded = asked.query.excluded()
    gateways = [each for each in (found[0].gateways if found else ()) if not _is_excluded(each, excluded)]
    return "" if asked.own in gateways or not gateways else gateways[0]


def _is_excluded(gateway: str, excluded: frozenset[str]) -> bool:
    """Say whether a client has named a gateway, or all of its host, as one that has failed it."""
    return gateway.lower() in excluded or gateway.lower().rpartition(":")[0] in excluded


def _check_body(asked: Asked) -> None:
    """See that the bytes come as HTTP/1.1 has them. Raises: io.UnsupportedOperation."""
    # Behind such a head the parser takes the bytes for those of the other protocol, and the body for empty.
    if "upgrade" in asked.request.headers:
        raise io.UnsupportedOperation("Upgrade: bytes are taken by HTTP/1.1 only; ask without it")


def _boolean(value: bool) -> Response:
    return _json({"boolean": value})


def _json(answer: Any) -> Response:
    return _text(forms.text_of(answer))


def _text(text: bytes) -> Response:
    return Response(text, media_type=forms.JSON)


# By method and name: what it does, and the handler. All else is refused.
OPERATIONS: Final[dict[str, dict[str, tuple[Act, Handler]]]] = {
    "GET": {
        "OPEN": (Act.READ, open_file),
        "GETFILESTATUS": (Act.LIST, get_file_status),
        "LISTSTATUS": (Act.LIST, list_status),
        "LISTSTATUS_BATCH": (Act.LIST, list_status_batch),
        "GETCONTENTSUMMARY": (Act.LIST, get_content_summary),
        "GETFILECHECKSUM": (Act.READ, get_file_checksum),
        "GETHOMEDIRECTORY": (Act.ANY, get_home_directory),
        "GETTRASHROOT": (Act.ANY, get_trash_root),
        "GETSERVERDEFAULTS": (Act.ANY, get_server_defaults),
        "GETFILEBLOCKLOCATIONS": (Act.LIST, get_file_block_locations),
        "GET_BLOCK_LOCATIONS": (Act.LIST, get_block_locations),
        "CHECKACCESS": (Act.LIST, check_access),
    },
    "PUT": {
        "CREATE": (Act.WRITE, create),
        "MKDIRS": (Act.WRITE, mkdirs),
        "RENAME": (Act.WRITE, rename),
        "SETREPLICATION": (Act.MANAGE, set_replication),
        "SETTIMES": (Act.WRITE, set_times),
    },
    "POST": {"APPEND": (Act.WRITE, append)},
    "DELETE": {"DELETE": (Act.WRITE, delete)},
}


def paths_of(path: str, query: Query) -> list[str]:
    """Return the paths that a request is about. Raises: ValueError."""
    paths = [normalized(path)]
    if query.op == "RENAME":
        paths.append(normalized(query.text("destination")))
    return paths
