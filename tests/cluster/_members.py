"""Members as ``forebay serve`` runs them, processes of their own over one S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown, PeerRefused
from forebay.peer.group import Group
from forebay.peer.links import PeerLinks
from forebay.peer.member import MemberState, View

BLOCK = 64 * KIB
GROUP = "g"
DATASET = "d"

_START_TIMEOUT_S = 60.0
_EXIT_TIMEOUT_S = 30.0
_POLL_S = 0.05


class ServedMember:
    """One cache directory, and the process that serves it."""

    def __init__(self, folder: Path, tier: Path, endpoint: str, peers: Sequence[str]) -> None:
        """Begin to start it; ``wait_until_ready`` comes before all else."""
        self.folder, self.tier = folder, Tier(str(tier), 64 * MIB, "MEM")
        folder.mkdir(parents=True, exist_ok=True)
        with self.open() as cache:
            cache.attach(DATASET, "s3://bucket", endpoint_url=endpoint, max_age=None)
        self.peers = peers
        self.start()

    def open(self) -> Cache:
        """Open its cache directory beside it."""
        return Cache(self.folder, [self.tier], block_bytes=BLOCK)

    def start(self) -> None:
        command = [sys.executable, "-m", "forebay", "serve", "--json", "--group", GROUP]
        command += ["--cache-dir", str(self.folder), "--listen", "127.0.0.1:0"]
        command += ["--tier", f"{self.tier.path}:{self.tier.quota}:MEM", "--peers", ",".join(self.peers)]
        environ = os.environ | {"FOREBAY_BLOCK_BYTES": str(BLOCK)}
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.id: str = said["member"]
        self.address: str = said["address"]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(_EXIT_TIMEOUT_S)

    def close(self) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
        try:
            self.process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Members:
    """The members of one group."""

    def __init__(self, folder: Path, tiers: Path, endpoint: str) -> None:
        """Have none yet; their folders lie below folder, their tiers below tiers."""
        self.all: list[ServedMember] = []
        self._folder, self._tiers, self._endpoint = folder, tiers, endpoint

    @property
    def seeds(self) -> list[str]:
        return [each.address for each in self.all]

    def add(self, count: int = 1) -> None:
        """Start some more, and wait until all see them all."""
        if not self.all:
            self._start([])
            self.all[0].wait_until_ready()
            count -= 1
        peers = self.seeds
        for _ in range(count):
            self._start(peers)
        for each in self.all[len(self.all) - count :]:
            each.wait_until_ready()
        self.wait_until_seen({each.id: MemberState.UP for each in self.all})

    def wait_until_seen(self, states: dict[str, MemberState]) -> None:
        """Wait until all that are up have a view with these members, so."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        for each in self.all:
            while states.get(each.id) is MemberState.UP and _states(view_at(each.address)) != states:
                assert time.monotonic() < deadline_s, f"{each.address} has {view_at(each.address)}"
                time.sleep(_POLL_S)

    def close(self) -> None:
        for each in self.all:
            each.close()

    def _start(self, peers: Sequence[str]) -> None:
        name = f"m{len(self.all)}"
        self.all.append(ServedMember(self._folder / name, self._tiers / name, self._endpoint, peers))


def view_at(address: str) -> View | None:
    """Return the view of the member at an address, None if it does not answer."""
    links = PeerLinks(Group(GROUP, [address], block_bytes=BLOCK))
    with suppress(PeerDown, PeerRefused):
        return links.greet(address, deadline=Deadline(5.0))
    return None


def _states(view: View | None) -> dict[str, MemberState]:
    return {} if view is None else {member.id: member.state for member in view.members}


@contextmanager
def members(folder: Path, tiers: Path, endpoint: str, count: int) -> Iterator[Members]:
    """Run so many members for the length of a with statement."""
    group = Members(folder, tiers, endpoint)
    try:
        group.add(count)
        yield group
    finally:
        group.close()
