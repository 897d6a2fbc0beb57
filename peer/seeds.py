"""What the seeds of a group stand for: an address each, or a name of the DNS that may have many.

A name that is not found for a moment keeps the addresses that it had: the DNS tells who is there, and not who
is gone, which is for probes to find out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

from forebay.peer.security.listen import Address, split_address

_log = logging.getLogger(__name__)

# Each takes a thread for as long as the DNS says nothing, of those that answer questions as well.
_AT_A_TIME: Final = 4


class Seeds:
    """The seeds of one member. For one event loop."""

    def __init__(self, seeds: Sequence[str]) -> None:
        """Take HOST:PORT each; nothing is looked up yet."""
        self._seeds: Final = tuple(seeds)
        self._known: Final[dict[str, list[str]]] = {}
        self._unknown: Final[set[str]] = set()
        self._threads: Final = asyncio.Semaphore(_AT_A_TIME)

    async def look_up(self) -> list[str]:
        """Return the addresses that all of them stand for now; may wait for the DNS."""
        await asyncio.gather(*map(self._look_up, self._seeds))
        return [address for seed in self._seeds for address in self._known.get(seed, [])]

    async def _look_up(self, seed: str) -> None:
        host, port = split_address(seed)
        try:
            async with self._threads:
                infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # Told once, and not each time that it is tried.
            if seed not in self._unknown:
                self._unknown.add(seed)
                _log.warning("peer %s: the name is not found, and is looked up again: %s", seed, error)
            return
        if seed in self._unknown:
            self._unknown.remove(seed)
            _log.info("peer %s: the name is found", seed)
        addresses = sorted({_numeric(info[4]) for info in infos})
        # A name of one address is used as it is: it is what certificates are made out to.
        self._known[seed] = [seed] if len(addresses) == 1 else addresses


def _numeric(place: Any) -> str:
    return str(Address(place[0], place[1]))
