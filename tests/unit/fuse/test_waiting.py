"""When whoever waits for requests stays awake, by a clock and a poll that are made up."""

from __future__ import annotations

from forebay.fuse.waiting import AWAKE_NS, CLOSE_NS, STREAK, Waiting

LOOK_NS = 1_000
LONG_NS = 10 * CLOSE_NS
CLOSELY_NS = AWAKE_NS // 2
READY = [(7, 1)]


class Requests:
    """A descriptor that is asked by poll, and a clock that goes on by it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.next_ns = 0
        self.looks = 0
        self.sleeps = 0

    def poll(self, timeout: int | None) -> list[tuple[int, int]]:
        """Look once, or sleep until there is a request."""
        if timeout is None:
            self.sleeps += 1
            self.now_ns = max(self.now_ns, self.next_ns)
            return READY
        self.looks += 1
        self.now_ns += LOOK_NS
        return READY if self.now_ns >= self.next_ns else []

    def clock_ns(self) -> int:
        return self.now_ns

    def come(self, waiting: Waiting, after_ns: int, times: int = 1) -> None:
        """Have a request come so long after one begins to wait, so often."""
        for _ in range(times):
            self.next_ns = self.now_ns + after_ns
            assert waiting.wait() == READY
            assert self.now_ns >= self.next_ns


def test_who_is_asked_closely_stays_awake() -> None:
    requests = Requests()
    waiting = Waiting(requests.poll, requests.clock_ns, processors=2)
    requests.come(waiting, CLOSELY_NS, STREAK)
    assert (requests.sleeps, requests.looks) == (STREAK, 0)
    requests.come(waiting, CLOSELY_NS, 100)
    assert requests.sleeps == STREAK


def test_a_burst_costs_one_moment() -> None:
    requests = Requests()
    waiting = Waiting(requests.poll, requests.clock_ns, processors=2)
    requests.come(waiting, CLOSELY_NS, STREAK)
    requests.come(waiting, LONG_NS)
    assert (requests.sleeps, requests.looks) == (STREAK + 1, AWAKE_NS // LOOK_NS)
    requests.come(waiting, LONG_NS, 100)
    assert requests.looks == AWAKE_NS // LOOK_NS


def test_who_is_asked_now_and_then_sleeps() -> None:
    requests = Requests()
    waiting = Waiting(requests.poll, requests.clock_ns, processors=2)
    for _ in range(100):
        requests.come(waiting, CLOSELY_NS, STREAK - 1)
        requests.come(waiting, LONG_NS)
    assert requests.looks == 0


def test_without_a_processor_to_spare_it_sleeps() -> None:
    requests = Requests()
    waiting = Waiting(requests.poll, requests.clock_ns, processors=1)
    requests.come(waiting, CLOSELY_NS, 100)
    assert requests.looks == 0
