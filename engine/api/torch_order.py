"""The order of an epoch, told to the workers that read it: each fetches ahead of what it will be asked for.

A DataLoader hands its batches to the workers in turn, so the indices that a worker is to get are those of
every n-th batch. `OrderedBatches` runs ahead of the sampler and lets each batch say what its worker gets
after it; `Follower`, in the worker, has the cache prefetch that. What it was told is only a hint: where
another batch comes than it expected, it begins anew with what that one says.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch.utils.data

from forebay.cache.prefetch import PATHS_AHEAD_MAX

if TYPE_CHECKING:
    from forebay.cache import Cache, Prefetcher, View

# As many as the cache goes ahead at most: a worker who is told of fewer is near the end.
_TOLD_AHEAD: Final = PATHS_AHEAD_MAX


class OrderedBatch(list[int]):
    """The indices of a batch, and of what its worker is to read after it."""

    __slots__ = ("upcoming",)

    def __init__(self, indices: Iterable[int], upcoming: array[int]) -> None:
        """Tell both."""
        super().__init__(indices)
        self.upcoming = upcoming

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as both."""
        return OrderedBatch, (list(self), self.upcoming)


class OrderedBatches(torch.utils.data.Sampler[list[int]]):
    """A batch sampler that lets the workers know what comes; for a DataLoader's ``batch_sampler``.

    It is some thousand samples ahead of what it gives, so a sampler beneath that changes its order meanwhile
    is followed from there on. It may be endless.
    """

    def __init__(self, batches: Iterable[Sequence[int]], num_workers: int) -> None:
        """Take batches from this batch sampler, for a DataLoader with so many workers.

        Raises: ValueError (num_workers is negative).
        """
        if num_workers < 0:
            raise ValueError(f"num_workers: {num_workers} is negative")
        self.batches: Final = batches
        self._lanes: Final = max(num_workers, 1)

    def __len__(self) -> int:
        """Return how many batches an epoch has. Raises: TypeError (the sampler beneath does not say)."""
        return len(self.batches)  # type: ignore[arg-type]  # its TypeError says what is missing

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of an epoch. Raises: what the sampler beneath raises, where that comes."""
        source: Iterator[Sequence[int]] | None = iter(self.batches)
        error: Exception | None = None
        waiting: deque[list[int]] = deque()
        lanes = [array("q") for _ in range(self._lanes)]
        number_in, number_out = 0, 0
        while True:
            told = lanes[number_out % self._lanes]
            # What was told of includes the batch that is due.
            while source is not None and len(told) <= _TOLD_AHEAD + (len(waiting[0]) if waiting else 0):
                try:
                    waiting.append(list(next(source)))
                except StopIteration:
                    source = None
                except Exception as raised:  # noqa: BLE001  (raised when the batches before were given)
                    source, error = None, raised
                else:
                    lanes[number_in % self._lanes].extend(waiting[-1])
                    number_in += 1
            if not waiting:
                if error is not None:
                    raise error
                return
            indices = waiting.popleft()
            del told[: len(indices)]
            yield OrderedBatch(indices, told[:_TOLD_AHEAD])
            number_out += 1


class Follower:
    """Reads batches in an order that it is told of a piece at a time. Threads: one at a time."""

    def __init__(self, cache: Cache, paths: Sequence[str]) -> None:
        """Read these paths, which are named by their positions."""
        self._cache: Final = cache
        self._paths: Final = paths
        self._told = _Told(paths)
        self._expected: array[int] = array("q")
        self._prefetcher: Prefetcher | None = None

    def read(self, batch: OrderedBatch) -> list[View]:
        """Return views of the objects of a batch, in order. Raises: as `Cache.read`."""
        coming = array("q", batch) + batch.upcoming
        count = len(self._expected)
        is_expected = self._prefetcher is not None and count > 0 and coming[:count] == self._expected
        # Whoever was told that there is no more does not ask for it.
        if not is_expected or (self._told.is_over and len(coming) > count):
            self.close()
            self._told = _Told(self._paths)
            self._prefetcher = self._cache.prefetch(self._told)
            count = 0
        prefetcher = self._prefetcher
        assert prefetcher is not None
        self._told.add(coming[count:])
        self._expected = batch.upcoming
        try:
            return [next(prefetcher)[1] for _ in batch]
        except BaseException:
            # The rest of this batch is not asked for any more.
            self.close()
            raise

    def close(self) -> None:
        """Fetch no more, until another batch is read."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None


class _Told(Iterator[str]):
    """The paths that a prefetcher is told of, which become more."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Begin with none."""
        self._paths: Final = paths
        self._indices: Final[deque[int]] = deque()
        self.is_over = False

    def add(self, indices: Iterable[int]) -> None:
        """Tell of more."""
        self._indices.extend(indices)

    def __next__(self) -> str:
        """Return the next. Raises: StopIteration (there is none; whoever saw that asks no more)."""
        if not self._indices:
            self.is_over = True
            raise StopIteration
        return self._paths[self._indices.popleft()]
