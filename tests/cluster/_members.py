"""Members as ``forebay serve`` runs them, processes of their own over one S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown, PeerRefused
from forebay.peer.group import Group
from forebay.peer.links import PeerLinks
from forebay.peer.member import MemberState, View
from forebay.peer.security.options import SecurityOptions
from tests._ports import port_of_ones_own
from tests.cluster import _patient

BLOCK = 64 * KIB
GROUP = "g"
DATASET = "d"

_START_TIMEOUT_S = 120.0
_EXIT_TIMEOUT_S = 120.0
_POLL_S = 0.05


# Those whose processes run, for what is shown of a test that failed.
running: list[ServedMember] = []


@dataclass(frozen=True, kw_only=True)
class Serve:
    """How a member is started: more options, a namespace's command before it, who may ask it."""

    listen: str = ""  # a port of its own at this machine, where it is found again after a restart
    options: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    program: tuple[str, ...] = ("-m", "forebay")
    security: SecurityOptions | None = None


PLAIN = Serve()
PATIENT = Serve(program=(_patient.__file__,))


class ServedMember:
    """One cache directory, and the process that serves it."""

    def __init__(
        self, folder: Path, tier: Path, endpoint: str, peers: Sequence[str], how: Serve = PLAIN
    ) -> None:
        """Begin to start it; ``wait_until_ready`` comes before all else."""
        self.folder, self.tier, self.how = folder, Tier(str(tier), 64 * MIB, "MEM"), how
        folder.mkdir(parents=True, exist_ok=True)
        with self.open() as cache:
            cache.attach(DATASET, "s3://bucket", endpoint_url=endpoint, max_age=None)
        self.peers = peers
        self.address = how.listen or f"127.0.0.1:{port_of_ones_own()}"
        self.log_file = folder.with_suffix(".log")
        self.start()

    def open(self) -> Cache:
        """Open its cache directory beside it."""
        return Cache(self.folder, [self.tier], block_bytes=BLOCK)

    def start(self) -> None:
        """Start its process, where it was before if it ran before."""
        tier = f"{self.tier.path}:{self.tier.quota}:MEM"
        command = [*self.how.prefix, sys.executable, *self.how.program, "serve", "--json"]
        command += ["--cache-dir", str(self.folder), "--listen", self.address]
        command += ["--tier", tier, "--peers", ",".join(self.peers), "--group", GROUP, *self.how.options]
        environ = os.environ | {"FOREBAY_BLOCK_BYTES": str(BLOCK)} | self.how.environ
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environ, stdout=subprocess.PIPE, stderr=log, text=True
            )
        running.append(self)

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.folder.name} ended: {self.log()}"
        said = json.loads(line)
        self.id: str = said["member"]
        self.address = said["address"]
        self.data_port: int = said["data_port"]
        self.gateway: str | None = said["webhdfs"]

    def restart(self) -> None:
        """Start it again at its address, after it was killed or has ended."""
        self._reap()
        self.start()
        self.wait_until_ready()

    def view(self) -> View | None:
        """Return its view, None if it does not answer."""
        return view_at(self.address, self.how.security)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1):
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
        self._reap()

    def _reap(self) -> None:
        assert self.process.returncode is not None
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self in running:
            running.remove(self)


class Members:
    """The members of one group."""

    def __init__(self, folder: Path, tiers: Path, endpoint: str, how: Serve = PLAIN) -> None:
        """Have none yet; their folders lie below folder, their tiers below tiers."""
        self.all: list[ServedMember] = []
        self.how = how
        self._folder, self._tiers, self._endpoint = folder, tiers, endpoint

    @property
    def seeds(self) -> list[str]:
        return [each.address for each in self.all]

    def add(self, count: int = 1) -> None:
        """Start some more, and wait until all see them all."""
        if not count:
            return
        if not self.all:
            self.start([])
            self.all[0].wait_until_ready()
            count -= 1
        peers = self.seeds
        for _ in range(count):
            self.start(peers)
        for each in self.all[len(self.all) - count :]:
            each.wait_until_ready()
        self.wait_until_seen({each.id: MemberState.UP for each in self.all})

    def wait_until_seen(self, states: dict[str, MemberState]) -> None:
        """Wait until all that are up have a view with these members, so."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        for each in self.all:
            while states.get(each.id) is MemberState.UP and _states(each.view()) != states:
                assert time.monotonic() < deadline_s, f"{each.address} has {each.view()}"
                time.sleep(_POLL_S)

    def close(self) -> None:
        for each in self.all:
            each.close()

    def start(self, peers: Sequence[str]) -> None:
        """Begin to start another, which may see nobody for now."""
        name = f"m{len(self.all)}"
        place = (self._folder / name, self._tiers / name, self._endpoint)
        self.all.append(ServedMember(*place, peers, self.how))


def view_at(address: str, security: SecurityOptions | None = None) -> View | None:
    """Return the view of the member at an address, None if it does not answer."""
    group = Group(GROUP, [address], security=security, block_bytes=BLOCK)
    with closing(PeerLinks(group)) as links, suppress(PeerDown, PeerRefused):
        return links.greet(address, deadline=Deadline(_START_TIMEOUT_S))
    return None


def _states(view: View | None) -> dict[str, MemberState]:
    return {} if view is None else {member.id: member.state for member in view.members}


@contextmanager
def members(folder: Path, tiers: Path, endpoint: str, count: int, how: Serve = PLAIN) -> Iterator[Members]:
    """Run so many members for the length of a with statement."""
    group = Members(folder, tiers, endpoint, how)
    try:
        group.add(count)
        yield group
    finally:
        group.close()
