"""Members that leave and come back while others read: real ones, and in the view of a client."""

from __future__ import annotations

import signal
import threading

from forebay.peer.group import Group
from forebay.peer.member import View
from tests.cluster._site import OBJECTS, Site, read_all, wait_until

READERS = 2


class Readers:
    """Threads that read everything again and again, and hold it to its bytes, for a with statement."""

    def __init__(self, site: Site, group: Group) -> None:
        self._cache = site.client().open(group)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(READERS)]
        self.failures: list[Exception] = []
        self.rounds = 0

    def _read(self, number: int) -> None:
        names = list(OBJECTS)[number * 7 :] + list(OBJECTS)[: number * 7]
        try:
            while not self._stop.is_set():
                read_all(self._cache, names)
                self.rounds += 1
        except Exception as error:  # noqa: BLE001  (told of by the test)
            self.failures.append(error)

    def wait_for_a_round(self) -> None:
        """Wait until all that there is has been read once more."""
        rounds = self.rounds
        wait_until(lambda: self.failures or self.rounds >= rounds + 2)
        assert self.failures == []

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._cache.close()
        assert self.failures == []


def leave_and_come_back(site: Site, times: int) -> None:
    """Have one real member after the other end, by its own will or killed, and start again."""
    group = site.client(peer_timeout_s=1.0).group()
    with Readers(site, group) as readers:
        for number in range(times):
            victim = site.members.all[number % len(site.members.all)]
            victim.signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
            readers.wait_for_a_round()
            victim.restart()
            readers.wait_for_a_round()


def show_views(site: Site, times: int) -> None:
    """Have a client see one member after the other leave and join."""
    group = site.client(peer_timeout_s=1.0).group()
    whole = site.members.all[0].view()
    assert whole is not None
    with Readers(site, group) as readers:
        readers.wait_for_a_round()
        for number in range(times):
            gone = whole.members[number // 2 % len(whole.members)]
            left = whole.members if number % 2 else [each for each in whole.members if each.id != gone.id]
            group.take_view(View.of(whole.epoch + number + 1, left))
            if number % 10 == 0:
                readers.wait_for_a_round()
