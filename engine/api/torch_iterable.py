"""An iterable dataset over cached objects, divided among ranks and workers, each fetching ahead of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch.distributed
import torch.utils.data

from forebay.api.torch_samples import Decode, FromCache, refuse_unknown
from forebay.api.torch_worker import spare_the_collector

if TYPE_CHECKING:
    from forebay.cache import Cache


class Sharded(FromCache, torch.utils.data.IterableDataset[Any]):
    """Paths of which each worker of each rank takes its own, in an order of the epoch's."""

    def __init__(
        self,
        cache: Cache,
        paths: Iterable[str],
        decode: Decode | None,
        zero_copy: bool,
        shuffle: bool,
        seed: int,
        rank: int | None,
        world_size: int | None,
    ) -> None:
        """Check the shard. Raises: ValueError (one of rank and world_size alone, or no such rank)."""
        super().__init__(cache, paths, decode, zero_copy)
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size: give both or neither")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"rank: {rank} is not one of {world_size}")
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        # In shared memory: workers that persist are told of the next epoch by it.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration be that of this epoch, in workers that persist as well."""
        self._epoch.fill_(epoch)

    def _own(self) -> Iterator[str]:
        """Yield the paths of the calling worker of this rank, in order."""
        count = len(self.paths)
        if self._shuffle:
            generator = torch.Generator().manual_seed(self._seed + int(self._epoch))
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.arange(count)
        rank, world_size = self._shard()
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # An array gives its numbers one by one, where a tensor would make a tensor of each beforehand.
        for index in order[rank::world_size][number::workers].numpy():
            yield self.paths[int(index)]

    def _shard(self) -> tuple[int, int]:
        """Return rank and world size: those given, else those of the process group, if there is one."""
        if self._rank is not None and self._world_size is not None:
            return self._rank, self._world_size
        return _own_rank() if _is_in_group() else (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Take the rank along, if there are ranks yet: a spawned worker is in no process group."""
        if self._rank is not None or not _is_in_group():
            return dict(self.__dict__)
        rank, world_size = _own_rank()
        return {**self.__dict__, "_rank": rank, "_world_size": world_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Have the epoch in shared memory again: not every way of pickling keeps it there."""
        self.__dict__.update(state)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]


class IterableDataset(Sharded):
    """Objects of a cache one after another, fetched ahead.

    Every object is given by one worker of one rank; ranks differ by one sample at most. Workers give theirs
    in turn, as a DataLoader has it.
    """

    def __init__(
        self,
        cache: Cache,
        paths: Iterable[str],
        *,
        decode: Decode | None = None,
        zero_copy: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        **unknown: Any,
    ) -> None:
        """Make a dataset of these paths.

        decode and zero_copy as for MapDataset. shuffle: in an order that seed and epoch (``set_epoch``) make,
        the same on every rank. rank, world_size: by default those of torch.distributed, if it is initialized
        when workers start. Raises: TypeError (another option); ValueError (no such rank).
        """
        refuse_unknown(IterableDataset, unknown)
        super().__init__(cache, paths, decode, zero_copy, shuffle, seed, rank, world_size)

    def __len__(self) -> int:
        """Return how many samples this rank has."""
        rank, world_size = self._shard()
        return len(range(rank, len(self.paths), world_size))

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's samples. Raises: as `Cache.prefetch`; what decode raises."""
        with self.cache.prefetch(self._own()) as ahead:
            for path, view in ahead:
                spare_the_collector()
                yield self._sample(path, view)


def _is_in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _own_rank() -> tuple[int, int]:
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
