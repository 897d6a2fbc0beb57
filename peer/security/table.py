"""The table of permissions: which verbs each call and each kind of frame takes, and for which paths.

What is not in the table is refused. A test derives the list of calls from the descriptor of the service and
fails for one without a row, and likewise for the kinds of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from forebay.peer.security.claims import Verb

# A dataset and the path in it.
Target = tuple[str, bytes]


class Where(Enum):
    """What a rule holds for."""

    PUBLIC = auto()  # whoever can connect: it says nothing about data
    ANY = auto()  # whoever has a good token, whatever it is for; scopes are held in what is carried within
    PATH = auto()  # the paths that the request names
    GROUP = auto()  # the group as such: tokens for all datasets only


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. One of the verbs is enough, and ``peer`` always is; targets takes the paths from a request."""

    where: Where
    verbs: frozenset[Verb] = frozenset()
    targets: Callable[[Any], Iterator[Target]] | None = None
    # For requests that ask for more than their call does.
    verbs_of: Callable[[Any], frozenset[Verb]] | None = None


def _path(request: Any) -> Iterator[Target]:
    yield request.dataset, request.path


def _directory(request: Any) -> Iterator[Target]:
    yield request.dataset, request.directory


def _whole(encoded: bytes) -> Target:
    """Part what names a dataset and the path in it."""
    dataset, _, path = encoded.partition(b"/")
    return dataset.decode("utf-8", "replace"), path


def _whole_path(request: Any) -> Iterator[Target]:
    yield _whole(request.path)


def _load(request: Any) -> Iterator[Target]:
    """Yield the target, and each of the files named below it."""
    dataset, path = _whole(request.target)
    below = path.rstrip(b"/")
    yield dataset, below
    for file in request.files:
        yield dataset, below + b"/" + file if below else file


def _hello(request: Any) -> frozenset[Verb]:
    """Return what a host needs that wants to be a member: to be listed as one, it has to be one."""
    is_member = request.role != "client" or bool(request.member_id)
    return frozenset({Verb.PEER}) if is_member else frozenset()


_READ: Final = frozenset({Verb.READ})
_STAT: Final = frozenset({Verb.READ, Verb.LIST})
_LIST: Final = frozenset({Verb.LIST})
_WRITE: Final = frozenset({Verb.WRITE})
_LOAD: Final = frozenset({Verb.LOAD})
_MANAGE: Final = frozenset({Verb.MANAGE})
_ADMIN: Final = frozenset({Verb.ADMIN})
_PEER: Final = frozenset({Verb.PEER})

CALLS: Final[dict[str, Rule]] = {
    "/forebay.v1.Peer/Hello": Rule(Where.ANY, verbs_of=_hello),
    # Each frame in it is held to FRAMES by who answers it.
    "/forebay.v1.Peer/Blocks": Rule(Where.ANY),
    "/forebay.v1.Peer/Stat": Rule(Where.PATH, _STAT, _path),
    "/forebay.v1.Peer/List": Rule(Where.PATH, _LIST, _directory),
    "/forebay.v1.Peer/Locate": Rule(Where.PATH, _LIST, _path),
    "/forebay.v1.Peer/GetView": Rule(Where.ANY),
    "/forebay.v1.Peer/Holds": Rule(Where.GROUP, _PEER),
    "/forebay.v1.Peer/Push": Rule(Where.GROUP, _PEER),
    "/forebay.v1.Admin/Load": Rule(Where.PATH, _LOAD, _load),
    "/forebay.v1.Admin/Apply": Rule(Where.PATH, _MANAGE, _whole_path),
    "/forebay.v1.Admin/Status": Rule(Where.GROUP, _ADMIN),
    # Clients need the settings of their datasets; the answer leaves out those of others (Permissions.sees).
    "/forebay.v1.Admin/PullSettings": Rule(Where.ANY),
    "/forebay.v1.Admin/PushSettings": Rule(Where.GROUP, _ADMIN),
    "/forebay.v1.Admin/Announce": Rule(Where.GROUP, _PEER),
    # For probes, which have no token.
    "/grpc.health.v1.Health/Check": Rule(Where.PUBLIC),
    "/grpc.health.v1.Health/List": Rule(Where.PUBLIC),
    "/grpc.health.v1.Health/Watch": Rule(Where.PUBLIC),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(Where.ANY),
}

FRAMES: Final[dict[str, Rule]] = {
    # The first one of a connection, which carries the token; who it is from is known once it is read.
    "HELLO": Rule(Where.ANY, verbs_of=_hello),
    "READ": Rule(Where.PATH, _READ),
    "TOUCH": Rule(Where.PATH, _READ),
    "STAT": Rule(Where.PATH, _STAT),
    "LIST": Rule(Where.PATH, _LIST),
    "VIEW": Rule(Where.ANY),
}

# What the gateway's operations do.
GATEWAY: Final[dict[str, Rule]] = {
    "webhdfs/read": Rule(Where.PATH, _READ),
    "webhdfs/list": Rule(Where.PATH, _STAT),
    "webhdfs/write": Rule(Where.PATH, _WRITE),
    "webhdfs/manage": Rule(Where.PATH, _MANAGE),
    "webhdfs/any": Rule(Where.ANY),
    # What names no dataset shows all of them.
    "webhdfs/root": Rule(Where.GROUP, _LIST),
}

RULES: Final = CALLS | FRAMES | GATEWAY
