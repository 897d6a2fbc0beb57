"""Members as processes of their own over one S3 server; the test says what view of the group they have."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from forebay.config import KIB
from forebay.peer.member import Member, MemberState, View

BLOCK = 64 * KIB

_SCRIPT = Path(__file__).with_name("_data_member.py")
_EXIT_TIMEOUT_S = 30.0


class DataMember:
    """One running member."""

    def __init__(self, folder: Path, tier: Path, endpoint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        given = {"cache": str(folder), "tier": str(tier), "endpoint": endpoint, "block_bytes": BLOCK}
        self._command = [sys.executable, str(_SCRIPT), json.dumps(given)]
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.member = Member(said["id"], said["address"], said["data_port"])

    def tell(self, view: View) -> None:
        """Have it go by a view."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(view.to_message().SerializeToString().hex() + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "OK\n"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait(_EXIT_TIMEOUT_S)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        with suppress(OSError, subprocess.TimeoutExpired):
            self.process.communicate(timeout=_EXIT_TIMEOUT_S)
        self.process.kill()
        self.process.wait(_EXIT_TIMEOUT_S)


class DataMembers:
    """Some members, and the view that those who run have been told."""

    def __init__(self, members: Sequence[DataMember]) -> None:
        self.all = list(members)
        self.epoch = 0
        self.tell(self.all)

    @property
    def seeds(self) -> list[str]:
        return [each.member.address for each in self.all]

    def tell(self, members: Sequence[DataMember], down: Sequence[DataMember] = ()) -> View:
        """Have all of these that run go by a view of them, some of which are down."""
        self.epoch += 1
        shown = [
            replace(each.member, state=MemberState.DOWN if each in down else MemberState.UP)
            for each in members
        ]
        self.view = View.of(self.epoch, shown)
        for each in members:
            if each not in down:
                each.tell(self.view)
        return self.view


@contextmanager
def data_members(folder: Path, tiers: Path, endpoint: str, count: int) -> Iterator[DataMembers]:
    """Run so many members for the length of a with statement."""
    running: list[DataMember] = []
    try:
        for number in range(count):
            running += [DataMember(folder / f"m{number}", tiers / f"m{number}", endpoint)]
        for each in running:
            each.wait_until_ready()
        yield DataMembers(running)
    finally:
        for each in running:
            each.close()
