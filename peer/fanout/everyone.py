"""Calls every member at once, and collects what each answers or why it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import grpc

from forebay.errors import UnderStorageError
from forebay.peer.paths import encoded
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.service.errors import EXPECTED, as_error
from forebay.peer.stubs import MemberStub

_T = TypeVar("_T")

_CALL_S: Final = 300.0
# As many members as are asked at a time; the others wait for a thread.
_THREADS_MAX: Final = 64


class Everyone(Protocol):
    """Who the members are. In a process that was forked there is nobody: gRPC does not outlive a fork."""

    def admins(self) -> Sequence[MemberStub]:
        """Return the members that are up."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What the members answered, and what those said that did not, by their names."""

    results: Mapping[str, Any]
    errors: Mapping[str, Exception]

    def raise_first(self) -> None:
        """Raise the error of a member, in words that name it and all others that failed."""
        for name, error in self.errors.items():
            others = ", ".join(other for other in self.errors if other != name)
            words = f"member {name}: {error}" + (f" (and so at {others})" if others else "")
            if isinstance(error, OSError):
                raise type(error)(error.errno, words) from error
            raise type(error)(words) from error


def apply(everyone: Everyone, verb: str, path: str, **arguments: Any) -> Answers:
    """Have every member apply a verb of ``Cache`` to a path."""
    request = pb.ApplyRequest(verb=verb, path=encoded(path), arguments=json.dumps(arguments).encode())

    def call(member: MemberStub) -> Any:
        return json.loads(member.admin.Apply(request, timeout=_CALL_S).result)

    return ask(everyone.admins(), call)


def locate(everyone: Everyone, dataset: str, path: str, total_bytes: int) -> dict[str, float]:
    """Return by host which share of all bytes at and below a path lies there, those with none apart.

    total_bytes is the caller's to say: a member knows of no more objects than it was asked for. Raises: as
    the members that fail, if all do.
    """
    request = pb.LocateRequest(dataset=dataset, path=encoded(path))
    members = everyone.admins()
    answers = ask(members, lambda member: member.peer.Locate(request, timeout=_CALL_S))
    if not answers.results:
        answers.raise_first()
    shares: dict[str, float] = {}
    for member in members:
        if (reply := answers.results.get(member.name)) is not None:
            share = reply.cached_bytes / total_bytes if total_bytes else 1.0
            shares[member.host] = shares.get(member.host, 0.0) + share
    return {host: share for host, share in shares.items() if share}


def ask(members: Sequence[MemberStub], call: Callable[[MemberStub], _T]) -> Answers:
    """Call for each member, side by side. Raises: OSError (there is no member)."""
    if not members:
        raise UnderStorageError("no member of the group answers")
    results: dict[str, Any] = {}
    errors: dict[str, Exception] = {}
    with ThreadPoolExecutor(min(len(members), _THREADS_MAX), "forebay-fanout") as threads:
        futures = [(member.name, threads.submit(call, member)) for member in members]
        for name, future in futures:
            try:
                results[name] = future.result()
            except grpc.RpcError as error:
                errors[name] = as_error(error)
            except EXPECTED as error:
                errors[name] = error
    return Answers(results, errors)
