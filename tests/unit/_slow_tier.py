"""The store's tier as its C sources say it, in bytes and one step at a time: slow, and easy to compare."""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1 << 10
MIB = 1 << 20
FILE_EXTRA = 3 * 4 * KIB


@dataclass
class Segment:
    """One segment in use."""

    queue: str
    state: str = "open"
    age: int = 0
    end: int = 4 * KIB
    records: list[int] = field(default_factory=list)


class SlowTier:
    """One tier of one dataset."""

    def __init__(self, quota: int, block_bytes: int, retention: str) -> None:
        self.retention = retention
        self.quota = quota
        aimed = 1 << ((quota // 512).bit_length() - 1)
        for_a_block = min(1 << ((quota // 16).bit_length() - 1), block_bytes)
        data = min(max(aimed, for_a_block, MIB), 256 * MIB)
        self.file_bytes = data + data // 512 + FILE_EXTRA
        self.count = quota // self.file_bytes
        self.segments: list[Segment] = []
        self.lengths: dict[int, int] = {}
        self.touched: dict[int, int] = {}
        self.age = 0
        ghosts = min(max(quota // (8 * KIB), 4_096), 1 << 20)
        self.sets = (1 << (ghosts.bit_length() - 1)) // 8
        self.ghosts: dict[int, list[int]] = {}

    @property
    def used(self) -> int:
        """Bytes of the segments in use."""
        return len(self.segments) * self.file_bytes

    def marks(self) -> tuple[int, int]:
        """The bytes above which eviction begins, and at which it ends."""
        high, low = self.quota // 1000 * 950, self.quota // 1000 * 900
        ahead = 6 * self.file_bytes
        if self.quota < 4 * ahead:
            ahead = 3 * self.file_bytes
        latest = max(self.quota - ahead, 0)
        if high > latest:
            low = max(low - (high - latest), 0)
            high = latest
        return high, low

    def limit(self, mover: bool) -> int:
        """Used bytes that a new segment may bring the tier to."""
        if mover:
            return self.quota
        reserve = 2 * self.file_bytes
        limit = self.quota
        if self.retention == "epoch":
            limit = self.quota // 1000 * 950
        elif self.quota > reserve:
            limit = self.quota - reserve
        return max(limit, self.file_bytes)

    def read(self, block: int, length: int) -> bool:
        """Read a block; returns whether it hit."""
        self.lengths[block] = length
        if any(block in segment.records for segment in self.segments):
            if self.retention == "lru":
                self.touched[block] = self.tick()
            else:
                self.touched[block] = min(self.touched[block] + 1, 3)
            return True
        has_ghost = self.retention == "s3fifo" and block in self.ghosts.get(self.ghost_set(block), [])
        if self.put(block, "main" if has_ghost else "small", mover=False):
            self.touched[block] = 0
        return False

    def tick(self) -> int:
        """The hand of the clock that hits are stamped with."""
        return self.age * 32 // self.count % 255 + 1

    def ghost_set(self, block: int) -> int:
        """Where the ghost of a block belongs."""
        return (block * 2_654_435_761 >> 8) % self.sets

    def extent(self, block: int) -> int:
        """What a record takes: data, checksums of its chunks, up to 64 bytes."""
        length = self.lengths[block]
        chunks = -(-length // (64 * KIB))
        size = -(-length // 8) * 8 + (chunks * 4 if chunks > 1 else 0)
        return -(-size // 64) * 64

    def put(self, block: int, queue: str, *, mover: bool) -> bool:
        """Find room for a record, in the open segment or another one."""
        extent = self.extent(block)
        if extent + 4 * KIB + 4 * KIB + 64 > self.file_bytes:
            return False
        while True:
            opened = [each for each in self.segments if each.state == "open" and each.queue == queue]
            if not opened:
                if not self.open(queue, mover=mover):
                    return False
                continue
            (segment,) = opened
            align = 4 * KIB if self.lengths[block] >= 64 * KIB else 64
            start = -(-segment.end // align) * align
            if start + extent + (len(segment.records) + 1) * 64 <= self.file_bytes:
                segment.end = start + extent
                segment.records.append(block)
                return True
            self.seal(segment)

    def open(self, queue: str, *, mover: bool) -> bool:
        """Take a segment into use, and let the evictor follow."""
        if self.used + self.file_bytes > self.limit(mover):
            if not mover:
                self.evict(asked=True)
            return False
        self.segments.append(Segment(queue))
        if not mover and self.retention != "epoch" and self.used > self.marks()[0]:
            self.evict(asked=False)
        return True

    def seal(self, segment: Segment) -> None:
        """Let no more records in."""
        self.age += 1
        segment.age, segment.state = self.age, "sealed"

    def evict(self, *, asked: bool) -> None:
        """Retire segments down to the low mark."""
        if self.retention == "epoch":
            return
        while self.used > self.marks()[1]:
            if asked and not any(segment.state == "sealed" for segment in self.segments):
                self.seal(next(each for each in self.segments if each.queue == self.giving()))
            victim = self.victim()
            if victim is None:
                return
            self.retire(victim)

    def giving(self) -> str:
        """The queue whose turn it is; the other one if that has no segment."""
        small = sum(segment.queue == "small" for segment in self.segments)
        turn, other = ("small", "main") if small * 100 > len(self.segments) * 10 else ("main", "small")
        return turn if any(segment.queue == turn for segment in self.segments) else other

    def victim(self) -> Segment | None:
        """The oldest sealed segment of the queue whose turn it is, or of the other one."""
        sealed = [segment for segment in self.segments if segment.state == "sealed"]
        own = [segment for segment in sealed if segment.queue == self.giving()]
        return min(own or sealed, key=lambda segment: segment.age, default=None)

    def retire(self, victim: Segment) -> None:
        """Drop the records of a segment, or move them."""
        victim.state = "retiring"
        records, victim.records = victim.records, []
        is_main = victim.queue == "main"
        # A segment on its way out is no longer counted in its queue.
        victim.queue = "retiring"
        for block in records:
            seen = self.touched[block]
            if self.retention == "lru":
                kept = seen != 0 and (self.tick() + 255 - seen) % 255 < 16
                if not (kept and self.put(block, "small", mover=True)):
                    del self.touched[block]
                continue
            kept = seen > 0 if is_main else seen > 1
            if kept and self.put(block, "main", mover=True):
                self.touched[block] = seen - 1 if is_main else 0
            else:
                del self.touched[block]
                ghosts = self.ghosts.setdefault(self.ghost_set(block), [])
                ghosts.append(block)
                del ghosts[:-7]
        self.segments.remove(victim)
