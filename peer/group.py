"""A group of peers as the remote of a cache: whom placement names is asked, those behind it when it fails.

It is a configuration until it is used. What it needs then belongs to one process: a forked child goes by the
view that it inherits and connects anew, a spawned one begins from the seeds. Nothing is raised for what
peers do: what they do not answer, in a bounded time, is left to the under storage.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, Literal, TypeVar

from forebay.config import BLOCK_BYTES_DEFAULT, parse_bytes
from forebay.errors import Closed, ConfigError, NotFound, Stale
from forebay.peer.batch import Batch
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown, PeerRefused
from forebay.peer.former import OwnerSide
from forebay.peer.identity import member_id
from forebay.peer.link import Link, Links
from forebay.peer.member import Member, View, check_address
from forebay.peer.patience import Patience
from forebay.peer.peers import GroupLimits, Peers
from forebay.peer.ranks import Ranks, Step
from forebay.peer.refresh import Refresh, Rings
from forebay.peer.ring import RUN_BYTES, Ring
from forebay.peer.security.credentials import Credentials
from forebay.peer.security.options import SecurityOptions
from forebay.peer.stubs import MemberStub, Stubs
from forebay.remote import BlockRequest, Holder, LocalCopy, Remote, RemoteObject, Share

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

Role = Literal["client", "member"]

_LOCAL_COPY: Final[dict[str, LocalCopy]] = {"client": "if_room", "member": "never"}


class _Process:
    """What belongs to one process."""

    def __init__(self, group: Group) -> None:
        self.pid: Final = os.getpid()
        self.peers: Final = Peers(group.open_links(), group.limits)
        self.refresh: Final = Refresh(group.seeds, self.peers, group.rings)
        self.own_id: Final = group.find_own_id()
        self.stubs: Final = Stubs(SecurityOptions() if group.security is None else group.security)
        self.ranks: Final = Ranks(self.own_id, socket.gethostname(), self.peers.busy)

    def close(self) -> None:
        self.refresh.close()
        self.peers.close()
        self.stubs.close()


class Group:
    """The peers of one group, a ``forebay.remote.Remote``. Pickles as its configuration. Threads: any."""

    def __init__(
        self,
        group: str,
        peers: Sequence[str],
        role: Role = "client",
        cache_dir: str | os.PathLike[str] | None = None,
        security: SecurityOptions | None = None,
        *,
        block_bytes: int | str = BLOCK_BYTES_DEFAULT,
        copies: int = 1,
        links: Callable[[Group], Links] | None = None,
        **limits: Any,
    ) -> None:
        """Read through this group; peers are addresses of members, role says whether this host is one.

        A member's identity lies in cache_dir. block_bytes is that of all caches of the group, copies the
        number of members that hold each block where no policy says more. links: how members are reached.
        limits are fields of GroupLimits. Asks nobody yet. Raises: ConfigError.
        """
        if role not in _LOCAL_COPY:
            raise ConfigError(f"role {role!r} in a group: expected client or member")
        if role == "member" and cache_dir is None:
            raise ConfigError(f"group {group!r}: a member has its identity in a cache directory")
        for address in peers:
            check_address(address)
        if copies < 1:
            raise ConfigError(f"group {group!r}: {copies} copies of a block, expected 1 at least")
        self.name: Final = group
        self.role: Final = role
        self.seeds: Final = tuple(peers)
        self.cache_dir: Final = None if cache_dir is None else os.fspath(cache_dir)
        self.security: Final = security
        self.block_bytes: Final = parse_bytes(block_bytes, "block_bytes")
        self.copies: Final = copies
        self.limits: Final = GroupLimits(**limits)
        self.rings: Final = Rings()
        self._configuration: Final = {
            "group": group,
            "peers": self.seeds,
            "role": role,
            "cache_dir": self.cache_dir,
            "security": security,
            "block_bytes": block_bytes,
            "copies": copies,
            "links": links,
            **limits,
        }
        self._links: Final = links
        self._credentials: Credentials | None = None
        self._processes: Final[dict[int, _Process]] = {}
        self._is_closed = False

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the configuration: the other process asks for a view of its own."""
        return partial(Group, **self._configuration), ()

    # ---- the remote ----

    @property
    def local_copy(self) -> LocalCopy:
        """Members keep what is theirs alone, and clients what they have room for."""
        return _LOCAL_COPY[self.role]

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        """Say whether peers are to be asked before the under storage; only the first view is waited for."""
        process, ring = self._now()
        if ring is None:
            return False
        skip = self._skipped(process, ring)
        copies = max(replicas, self.copies)
        return bool(process.ranks.elsewhere(ring, dataset, path, offset, copies, skip))

    def owns(self, dataset: str, path: str, offset: int) -> bool:
        """Say whether this host is the first to answer, of those that seem to be well.

        Without a view everybody owns everything.
        """
        process, ring = self._now()
        if ring is None:
            return True
        first = ring.owners(dataset, path, offset, 1, self._skipped(process, ring))
        return not first or first[0].id == process.own_id

    def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Holder]:
        """Return the members that answer for what lies there and seem to be well."""
        process, ring = self._now()
        if ring is None:
            return ()
        skip = self._skipped(process, ring)
        found = ring.owners(dataset, path, offset, max(replicas, self.copies), skip)
        return [Holder(member.address, member.gateway) for member in found]

    def share(self, members: Sequence[str]) -> Share:
        """Return what says where this host is the first to answer, had the group these members alone."""
        process, ring = self._now()
        ids = frozenset(members)
        others = frozenset() if ring is None else frozenset(m.id for m in ring.members if m.id not in ids)

        def is_ours(dataset: str, path: str, offset: int) -> bool:
            if ring is None or process.own_id not in ids:
                return False
            first = ring.owners(dataset, path, offset, 1, others)
            return bool(first) and first[0].id == process.own_id

        return is_ours

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        """Fill the buffers with what peers have or bring, as ``Remote.fetch`` says."""
        process, ring = self._now()
        if ring is None:
            return
        skip = self._skipped(process, ring)
        known: dict[tuple[str, str, int, int], list[Step]] = {}
        steps = []
        for dataset, path, _, _, offset, _, replicas in requests:
            run = (dataset, path, offset // RUN_BYTES, replicas)
            if run not in known:
                copies = max(replicas, self.copies)
                known[run] = process.ranks.steps(ring, dataset, path, offset, copies, skip)
            steps.append(known[run])
        Batch(process.peers, requests, buffers, steps, came, alive).run()

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return what an object is and its first bytes; None: unanswered."""
        return self._ask(
            dataset,
            path,
            offset,
            lambda link, deadline: link.touch(dataset, path, offset, length, deadline=deadline),
        )

    def stat(self, dataset: str, path: str) -> RemoteObject | None:
        """Describe an object or a directory; None: unanswered."""
        return self._ask(dataset, path, 0, lambda link, deadline: link.stat(dataset, path, deadline=deadline))

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]] | None:
        """Yield what lies in a directory; None: unanswered. Its first page is here when this returns."""
        return self._ask(
            dataset, directory, 0, lambda link, deadline: link.list(dataset, directory, deadline=deadline)
        )

    def close(self) -> None:
        """Close the connections of this process; may be called twice. Nothing is elsewhere from then on."""
        self._is_closed = True
        process = self._processes.get(os.getpid())
        if process is not None:
            process.close()

    # ---- all members ----

    def admins(self) -> Sequence[MemberStub]:
        """Return the members that are up, to be given commands. Raises: OSError (this process was forked)."""
        process, ring = self._now()
        if ring is None:
            return []
        process.stubs.keep({member.address for member in ring.view.members})
        skip = self._skipped(process, ring)
        return [process.stubs.of(member) for member in ring.view.members if member.id not in skip]

    def one_admin(self, turn: int) -> AbstractContextManager[MemberStub] | None:
        """Return a member that is up, another each turn, for one call; None: nobody is. Raises: OSError."""
        process, ring = self._now()
        if ring is None:
            return None
        skip = self._skipped(process, ring)
        well = [member for member in ring.view.members if member.id not in skip]
        return process.stubs.for_once(well[turn % len(well)]) if well else None

    # ---- a member's own ----

    def owner_side(self) -> Remote:
        """Return what this host asks, as a member that answers, before the under storage."""
        return OwnerSide(self)

    def take_view(self, view: View) -> None:
        """Go by the view of this process's own membership from now on, instead of asking for one."""
        self._process().refresh.tell(view)

    # ---- what is known ----

    @property
    def peers(self) -> Peers:
        """The peers as this process sees them."""
        return self._process().peers

    @property
    def ring(self) -> Ring | None:
        """The ring that this process goes by, None as long as nobody has told it one."""
        return self._now()[1]

    @property
    def own_id(self) -> str | None:
        """The member that this host is."""
        return self._process().own_id

    def skipped(self, ring: Ring) -> frozenset[str]:
        """Return the ids of members that are not asked for now."""
        return self._skipped(self._process(), ring)

    def is_changed_within(self, seconds: float) -> bool:
        """Say whether the ring has changed lately, or this process has its first one since then."""
        return time.monotonic() - self.rings.changed_s < seconds

    def status(self) -> dict[str, Any]:
        """Return what this process knows of the group, and its counts, without asking anybody."""
        process, ring = self._process(), self.rings.ring
        return {
            "group": self.name,
            "role": self.role,
            "epoch": None if ring is None else ring.epoch,
            "members": []
            if ring is None
            else [_shown(member, process.peers) for member in ring.view.members],
            **process.peers.status(),
        }

    # ---- of a process ----

    def open_links(self) -> Links:
        """Return the ways to members for this process; connects to none."""
        if self._links is not None:
            return self._links(self)
        from forebay.peer.links import PeerLinks  # gRPC is loaded by the first use alone

        return PeerLinks(self)

    def credentials(self) -> Credentials:
        """Return what this host shows to members. Raises: ConfigError.

        It is read by the first process: a fork goes on with it though a file is gone by then. No lock, see
        ``_process``.
        """
        if self._credentials is None:
            self._credentials = Credentials() if self.security is None else self.security.credentials()
        return self._credentials

    def find_own_id(self) -> str | None:
        """Return the id of the member that this host is, None for a client."""
        if self.role != "member" or self.cache_dir is None:
            return None
        try:
            return member_id(self.cache_dir)
        except (ConfigError, OSError) as error:
            # Its own member is a peer like others then: slower, and nothing worse.
            _log.warning("group %s: this host is taken for a client: %s", self.name, error)
            return None

    def _process(self) -> _Process:
        process = self._processes.get(os.getpid())
        if process is None:
            # No lock, for one might be held by no thread of ours after a fork: the first to put it in wins.
            process = self._processes.setdefault(os.getpid(), _Process(self))
            if self._is_closed:
                process.close()
        return process

    def _now(self) -> tuple[_Process, Ring | None]:
        """Return this process's means and the ring; the first call may wait for it."""
        process = self._process()
        if self._is_closed:
            return process, None
        process.refresh.begin()
        return process, self.rings.ring

    def _skipped(self, process: _Process, ring: Ring) -> frozenset[str]:
        suspects = process.peers.suspects.ids
        return ring.down | suspects if suspects else ring.down

    def _ask(self, dataset: str, path: str, offset: int, call: Callable[[Link, Deadline], _T]) -> _T | None:
        """Ask one after the other of those who answer for it; None if nobody does in time."""
        process, ring = self._now()
        if ring is None:
            return None
        skip = self._skipped(process, ring)
        members = process.ranks.elsewhere(ring, dataset, path, offset, 1, skip)
        return self.ask_members(members, call, timeout_s=self.limits.peer_timeout_s)

    def ask_members(
        self, members: Sequence[Member], call: Callable[[Link, Deadline], _T | None], *, timeout_s: float
    ) -> _T | None:
        """Ask one after the other, each of which may be silent for so long; None if nobody answers."""
        process = self._process()
        patience = Patience(timeout_s, self.limits.total_timeout_s)
        for member in members:
            if patience.is_over:
                break
            begun_s = time.monotonic()
            try:
                return self._call(process.peers, member, patience.deadline(), call)
            except (PeerRefused, Closed) as error:
                process.peers.refused(member, error)
            except PeerDown as error:
                patience.spend(time.monotonic() - begun_s)
                process.peers.failed(member, error)
        return None

    def _call(
        self, peers: Peers, member: Member, deadline: Deadline, call: Callable[[Link, Deadline], _T | None]
    ) -> _T | None:
        peers.begin(member)
        try:
            found = call(peers.links.link(member), deadline)
        except (NotFound, Stale, PermissionError):
            peers.suspects.answered(member.id)
            raise
        finally:
            peers.end(member)
        peers.suspects.answered(member.id)
        return found


def _shown(member: Member, peers: Peers) -> dict[str, Any]:
    latency = peers.latency(member.id)
    return {
        "id": member.id,
        "address": member.address,
        "host": member.host,
        "state": member.state.name.lower(),
        "is_suspect": member.id in peers.suspects.ids,
        "median_s": latency.median_s,
        "hedge_after_s": latency.hedge_after_s,
    }
