"""Seeds that are names with several addresses, as of headless services, known in a mount namespace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests._ports import port_of_ones_own
from tests.cluster import _short_grace
from tests.cluster._members import Members, Serve
from tests.cluster._site import Site, running, wait_until

NAME = "cache.test"
REPOSITORY = Path(__file__).parents[2]
# Of the same port, as all addresses of one name are.
FIRST, SECOND, THIRD, OTHER = HOSTS = tuple(f"127.0.1.{number}" for number in range(1, 5))


class Names:
    """What a name stands for, for processes that are started with ``inside`` before their command."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "hosts"
        self.set([])
        mounted = f'mount --bind {self._file} /etc/hosts && exec "$@"'
        self.inside = ("unshare", "--mount", "sh", "-c", mounted, "sh")
        self.port = port_of_ones_own(FIRST)
        self.seed = f"{NAME}:{self.port}"

    def set(self, hosts: Sequence[str]) -> None:
        # Into the same file, which is what is mounted.
        self._file.write_text("".join(f"{host} {NAME}\n" for host in hosts) + "127.0.0.1 localhost\n")

    def member_at(self, host: str, *options: str) -> Serve:
        program = (_short_grace.__file__,)
        return Serve(
            listen=f"{host}:{self.port}", prefix=self.inside, program=program, options=("-v", *options)
        )


@pytest.fixture
def at(tmp_path: Path) -> Iterator[tuple[Names, Site]]:
    """A name for nothing, and a member that has it as its only seed."""
    names = Names(tmp_path)
    how = names.member_at(FIRST)
    with running(tmp_path, 0, how) as site:
        start(site.members, names, FIRST)
        yield names, site


def start(group: Members, names: Names, host: str, *options: str) -> None:
    """Start a member whose only seed is the name."""
    group.how = names.member_at(host, *options)
    group.start([names.seed])
    group.all[-1].wait_until_ready()


@contextmanager
def client(names: Names, site: Site) -> Iterator[subprocess.Popen[str]]:
    made = site.client()
    program = [sys.executable, "-m", "tests.cluster._named_client"]
    place = [str(made.folder), str(made.tier), names.seed, made.endpoint_url]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*names.inside, *program, *place], cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def read(process: subprocess.Popen[str]) -> set[str]:
    """Have a client read everything; return whom it knows then."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return set(json.loads(process.stdout.readline()))


def members_at(site: Site, number: int) -> set[str]:
    view = site.members.all[number].view()
    return set() if view is None else {member.id for member in view.members}


def ids(site: Site, *numbers: int) -> set[str]:
    return {site.members.all[number].id for number in numbers}


def test_members_and_clients_follow_the_addresses_of_a_name(at: tuple[Names, Site]) -> None:
    names, site = at
    with client(names, site) as reader:
        start(site.members, names, SECOND)
        # The name is not found yet: each is alone, and a client reads from the under storage.
        assert members_at(site, 0) == ids(site, 0)
        assert members_at(site, 1) == ids(site, 1)
        assert read(reader) == set()
        wait_until(lambda: "the name is not found" in site.members.all[0].log())

        names.set([FIRST, SECOND])
        wait_until(lambda: members_at(site, 0) == members_at(site, 1) == ids(site, 0, 1))
        wait_until(lambda: read(reader) == ids(site, 0, 1))

        # One that comes is told of by the DNS alone.
        names.set([FIRST, SECOND, THIRD])
        start(site.members, names, THIRD)
        everybody = ids(site, 0, 1, 2)
        wait_until(lambda: all(members_at(site, number) == everybody for number in range(3)))
        wait_until(lambda: read(reader) == everybody)

        def costs_the_storage_nothing() -> bool:
            site.requests()
            read(reader)
            return site.requests() == 0

        # Members that are given up so soon are so when they get no processor for a moment, too.
        wait_until(costs_the_storage_nothing)

        names.set([FIRST, SECOND])
        site.members.all[2].signal(signal.SIGKILL)
        wait_until(lambda: members_at(site, 0) == members_at(site, 1) == ids(site, 0, 1))
        wait_until(lambda: read(reader) == ids(site, 0, 1))


def test_a_member_of_another_group_behind_the_name_is_refused_by_name_and_reason(
    at: tuple[Names, Site],
) -> None:
    names, site = at
    start(site.members, names, SECOND)
    start(site.members, names, OTHER, "--group", "other")
    names.set([FIRST, SECOND, OTHER])
    first = site.members.all[0]
    reason = f"peer {OTHER}:{names.port} is none of this group: group: 'other' at the member, 'g' at who asks"
    wait_until(lambda: reason in first.log(), first.log)
    wait_until(lambda: members_at(site, 0) == members_at(site, 1) == ids(site, 0, 1))
    names.set([OTHER])
    with client(names, site) as reader:
        assert read(reader) == set()
        reader.kill()
        _, said = reader.communicate()
    assert names.seed in said
    assert "'other'" in said
    assert "'g'" in said
