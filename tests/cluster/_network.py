"""Hosts of their own in network namespaces, joined by a bridge; links are cut and mended. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A bridge with an address in this namespace, and hosts beyond it, by their numbers from 0."""

    name: str
    net: str

    @property
    def own_address(self) -> str:
        return f"{self.net}.1"

    def address(self, host: int) -> str:
        return f"{self.net}.{host + 2}"

    def inside(self, host: int) -> tuple[str, ...]:
        """Return the command that runs another in a host."""
        return ("ip", "netns", "exec", f"{self.name}h{host}")

    def set_link(self, host: int, *, up: bool) -> None:
        """Cut a host off from all, or join it again."""
        _ip("link", "set", f"{self.name}v{host}", "up" if up else "down")

    def cut_one_way(self, host: int, other: int) -> None:
        """Let what a host sends to another be lost; what comes from there still comes."""
        _run(*self.inside(host), "ip", "route", "add", "blackhole", f"{self.address(other)}/32")

    def mend_one_way(self, host: int, other: int) -> None:
        _run(*self.inside(host), "ip", "route", "del", "blackhole", f"{self.address(other)}/32")

    def make(self, host_count: int) -> None:
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.own_address}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        for host in range(host_count):
            namespace, outer, inner = f"{self.name}h{host}", f"{self.name}v{host}", f"{self.name}i{host}"
            _ip("netns", "add", namespace)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            _ip("link", "set", outer, "master", self.name, "up")
            _ip("link", "set", inner, "netns", namespace)
            _run(*self.inside(host), "ip", "addr", "add", f"{self.address(host)}/24", "dev", inner)
            for device in ("lo", inner):
                _run(*self.inside(host), "ip", "link", "set", device, "up")

    def remove(self, host_count: int) -> None:
        for host in range(host_count):
            _ip("netns", "del", f"{self.name}h{host}", check=False)
            _ip("link", "del", f"{self.name}v{host}", check=False)
        _ip("link", "del", self.name, check=False)


@contextmanager
def network(host_count: int) -> Iterator[Network]:
    """Make one for the length of a with statement; what cannot be made fails with its reason."""
    pid = os.getpid()
    made = Network(f"fb{pid}", f"10.{192 + (pid >> 8) % 63}.{pid % 256}")
    try:
        made.make(host_count)
        yield made
    finally:
        made.remove(host_count)


def _ip(*arguments: str, check: bool = True) -> None:
    _run("ip", *arguments, check=check)


def _run(*command: str, check: bool = True) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}"
