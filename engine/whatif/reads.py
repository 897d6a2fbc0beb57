"""A trace as what a store is asked for: blocks, by number, in order; of a long trace a sample.

Of more reads than fit, those of a part of the blocks are kept, all of them: a cache as much smaller misses
about as much less of these. Which blocks these are is decided by a hash, and their share is halved whenever
there are too many, so memory is bounded and a trace is read once.
Source: C. Waldspurger et al., "Efficient MRC Construction with SHARDS" (FAST 2015), sections 3 and 4. As in
their SHARDS-adj the misses are set against all reads: few blocks have many reads, nearly all of them hits.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

import mmh3

from forebay.cache import Access

READS_MAX: Final = 2_000_000

_HASH_BITS: Final = 64


class Reads:
    """The blocks that are read, in order. rate: the share of all blocks that are looked at.

    blocks has the number of each; numbers count from 0 in the order of first reads. lengths and counts have
    for each number the block's bytes and how often it is read. accesses, total and total_bytes: calls that
    read, and what they read in blocks, whether it is looked at or not.
    """

    def __init__(self, accesses: Iterable[Access], block_bytes: int, reads_max: int = READS_MAX) -> None:
        """Take the blocks of all accesses in, or of as many as reads_max allows."""
        self.rate = 1.0
        self.blocks = array("I")
        self.lengths = array("I")
        self.counts = array("I")
        self.accesses = 0
        self.total = 0
        self.total_bytes = 0
        self._block_bytes: Final = block_bytes
        self._reads_max: Final = reads_max
        self._hashes = array("Q")
        self._numbers: dict[int, int] = {}
        self._limit = 1 << _HASH_BITS
        for access in accesses:
            self._add(access)
        self._numbers.clear()

    @property
    def distinct_bytes(self) -> int:
        """The bytes of all blocks, each once, as far as those tell that are looked at."""
        return round(sum(self.lengths) / self.rate)

    def _add(self, access: Access) -> None:
        self.accesses += 1
        block_bytes, size, offset = self._block_bytes, access.size, access.offset
        end = min(offset + access.length, size)
        if end <= offset:
            return
        for number in range(offset // block_bytes, (end - 1) // block_bytes + 1):
            length = min(block_bytes, size - number * block_bytes)
            self.total += 1
            self.total_bytes += length
            # A size that has changed is another version; of others the trace does not tell.
            name = mmh3.hash64(f"{access.path}\0{size}\0{number}", signed=False)[0]
            if name >= self._limit:
                continue
            block = self._numbers.get(name)
            if block is None:
                block = self._numbers[name] = len(self.lengths)
                self._hashes.append(name)
                self.lengths.append(length)
                self.counts.append(0)
            self.blocks.append(block)
            self.counts[block] += 1
            if len(self.blocks) > self._reads_max:
                self._halve()

    def _halve(self) -> None:
        """Go on with half of the blocks, as if there had never been others."""
        self._limit //= 2
        self.rate /= 2
        kept = [block for block, name in enumerate(self._hashes) if name < self._limit]
        renamed = array("i", [-1]) * len(self._hashes)
        for number, block in enumerate(kept):
            renamed[block] = number
        self.blocks = array("I", (renamed[block] for block in self.blocks if renamed[block] >= 0))
        self.lengths = array("I", (self.lengths[block] for block in kept))
        self.counts = array("I", (self.counts[block] for block in kept))
        self._hashes = array("Q", (self._hashes[block] for block in kept))
        self._numbers = {name: number for number, name in enumerate(self._hashes)}
