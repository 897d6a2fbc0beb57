"""Keeps the view of the group of one process fresh, and finds out whether suspects are well again.

A view is asked of any member, another each time, over the data port; seeds, which may be names of the DNS
with many addresses, are greeted only where no member answers. Both happen in a thread of their own: no read
waits for a view, but for the first. Of the data that is owned nothing depends on the view's age: whoever is
asked answers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from forebay.errors import Closed, ConfigError
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown, PeerRefused
from forebay.peer.failures import Failures
from forebay.peer.member import Member, View
from forebay.peer.peers import Peers
from forebay.peer.ring import Ring

_log = logging.getLogger(__name__)

VIEW_INTERVAL_S: Final = 2.0
_RETRY_INTERVAL_S: Final = 0.5
_PROBE_TIMEOUT_S: Final = 1.0
# Answers with smaller epochs than ours, in a row, after which the group is taken to have begun anew.
_OLDER_MAX: Final = 3
_ASKED_MAX: Final = 3


class Rings:
    """The ring as a process has it last, which a forked child inherits. Threads: one takes, any read."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Have none."""
        self._now_s: Final = now_s
        self._older = 0
        self.ring: Ring | None = None
        # When it was seen last that somebody came, went, or changed state; 0 if never.
        self.changed_s = 0.0

    def take(self, view: View) -> bool:
        """Go by a view from now on, unless it is an older one; return whether it is another."""
        ring = self.ring
        if ring is None:
            self.changed_s = self._now_s()
            self.ring = Ring(view)
            return True
        self._older = self._older + 1 if view.epoch < ring.epoch else 0
        if view == ring.view or 0 < self._older < _OLDER_MAX:
            return False
        self._older = 0
        if view.members != ring.view.members:
            self.changed_s = self._now_s()
        self.ring = Ring(view)
        return True


class Refresh:
    """What has to be done now and then about the view and the suspects, and the thread for it."""

    def __init__(self, seeds: Sequence[str], peers: Peers, rings: Rings) -> None:
        """Start nothing yet."""
        self._seeds: Final = tuple(seeds)
        self._peers: Final = peers
        self._rings: Final = rings
        # Processes begin with different members.
        self._turns = os.getpid()
        self._view_due_s = peers.now_s()
        self._first: Final = threading.Lock()
        self._is_begun = False
        self._is_told = False
        self._stopping = False
        self._told_level = logging.WARNING
        self._failures: Final = Failures(
            _log, "the view of the group could not be refreshed; it is in a moment"
        )
        self._wake: Final = threading.Event()
        self._thread: threading.Thread | None = None
        peers.on_suspect = self._wake.set

    def begin(self) -> None:
        """Have a view, if one is to be had within the time-out, and start the thread; once."""
        if not self._is_begun:
            self._begin()

    def _begin(self) -> None:
        if not self._first.acquire(timeout=self._peers.limits.peer_timeout_s):
            return
        try:
            if self._is_begun or self._stopping:
                return
            if self._rings.ring is None:
                self.turn()
            self._is_begun = True
            self._thread = threading.Thread(target=self._run, name="forebay-view", daemon=True)
            with suppress(RuntimeError):  # the interpreter ends
                self._thread.start()
        finally:
            self._first.release()

    def tell(self, view: View) -> None:
        """Take the view of this process's own membership, and ask nobody for one any more."""
        self._is_told = True
        self._take(view)

    def close(self) -> None:
        """Let the thread end. May be called twice."""
        self._stopping = True
        self._wake.set()

    def turn(self) -> float:
        """Do what is due; return in how many seconds something is due again."""
        if not self._is_told and self._peers.now_s() >= self._view_due_s:
            has_view = self._ask_for_view()
            self._view_due_s = self._peers.now_s() + (VIEW_INTERVAL_S if has_view else _RETRY_INTERVAL_S)
        # One at a time: many that are silent would hold up the view, which says who else is there.
        for member_id in self._peers.suspects.due()[:1]:
            self._probe(member_id)
        probe_in_s = self._peers.suspects.due_in_s()
        view_in_s = VIEW_INTERVAL_S if self._is_told else max(self._view_due_s - self._peers.now_s(), 0.0)
        return view_in_s if probe_in_s is None else min(probe_in_s, view_in_s)

    def _run(self) -> None:
        while not self._stopping:
            try:
                due_in_s = self.turn()
            except Exception as error:  # noqa: BLE001  (reads go by the view that there is)
                self._failures.tell(error)
                due_in_s = VIEW_INTERVAL_S
            self._wake.wait(due_in_s)
            self._wake.clear()

    def _probe(self, member_id: str) -> None:
        ring = self._rings.ring
        member = None if ring is None else ring.get(member_id)
        if member is None:
            self._peers.suspects.answered(member_id)  # nobody asks it any more
            return
        if ring is not None and member_id in ring.down:
            # Skipped in any case; it is probed once members reach it.
            self._peers.suspects.defer(member_id)
            return
        with suppress(PeerDown, PeerRefused, Closed, ConfigError):
            self._view_of(member)
            self._peers.suspects.answered(member_id)
            _log.info("peer %s answers again", member.address)
            return
        self._peers.suspects.failed(member_id)

    def _ask_for_view(self) -> bool:
        """Ask a few members, or else the seeds; return whether one has answered."""
        self._turns += 1
        for member in self._askable():
            begun_s = self._peers.now_s()
            try:
                self._take(self._view_of(member))
                return True
            except PeerDown as error:
                if not self._is_silent_for_a_moment(self._peers.now_s() - begun_s):
                    self._peers.failed(member, error)
            except (PeerRefused, Closed, ConfigError) as error:
                self._peers.refused(member, error)
        limits = self._peers.limits
        until_s = self._peers.now_s() + limits.peer_timeout_s
        # The first failure is told, and not each of those that follow.
        level, self._told_level = self._told_level, logging.DEBUG
        for position in range(len(self._seeds)):
            seed = self._seeds[(self._turns + position) % len(self._seeds)]
            try:
                deadline = Deadline(limits.peer_timeout_s / 2, until_s)
                self._take(self._peers.links.greet(seed, deadline=deadline))
                self._told_level = logging.WARNING
                return True
            except (PeerDown, PeerRefused, ConfigError) as error:
                _log.log(level, "member %s: no view of the group: %s", seed, error)
        return False

    def _is_silent_for_a_moment(self, took_s: float) -> bool:
        """Say whether a member that gave no view was silent, and not as long as one that is asked may be."""
        return _PROBE_TIMEOUT_S <= took_s < self._peers.limits.peer_timeout_s

    def _askable(self) -> list[Member]:
        """Return the members to ask for a view this time: a few of those that seem to be well."""
        ring = self._rings.ring
        if ring is None:
            return []
        skip = ring.down | self._peers.suspects.ids
        well = [member for member in ring.members if member.id not in skip]
        start = self._turns % max(len(well), 1)
        return [*well[start:], *well[:start]][:_ASKED_MAX]

    def _view_of(self, member: Member) -> View:
        timeout_s = min(_PROBE_TIMEOUT_S, self._peers.limits.peer_timeout_s)
        deadline = Deadline(timeout_s, self._peers.now_s() + timeout_s)
        return self._peers.links.view(member, deadline=deadline)

    def _take(self, view: View) -> None:
        if self._rings.take(view):
            self._peers.keep(frozenset(member.id for member in view.members))
