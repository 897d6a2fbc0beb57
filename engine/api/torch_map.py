"""A map-style dataset over cached objects, and a DataLoader whose order the cache knows ahead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch.utils.data
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from forebay.api.torch_order import Follower, OrderedBatch, OrderedBatches
from forebay.api.torch_samples import Decode, FromCache, refuse_unknown
from forebay.api.torch_worker import spare_the_collector

if TYPE_CHECKING:
    from forebay.cache import Cache, View


class MapDataset(FromCache, torch.utils.data.Dataset[Any]):
    """Objects of a cache by number, in the order of their paths.

    A sample is a tensor of the object's bytes, or what decode makes of them. It pickles, and works in workers
    of every start method. Threads: any, but for batches of `OrderedBatches`: one at a time.
    """

    def __init__(
        self,
        cache: Cache,
        paths: Iterable[str],
        *,
        decode: Decode | None = None,
        zero_copy: bool = False,
        **unknown: Any,
    ) -> None:
        """Make a dataset of these paths.

        decode(path, data) makes a sample; data is a bytearray of its own. zero_copy: samples are tensors over
        the cached bytes, and data is the View of them: neither may be written to, and what is kept keeps its
        bytes in the cache. Raises: TypeError (another option, or one of another kind).
        """
        refuse_unknown(MapDataset, unknown)
        super().__init__(cache, paths, decode, zero_copy)
        self._follower: Follower | None = None

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        """Return a sample. Raises: IndexError; as `Cache.read`; what decode raises."""
        path = self.paths[index]
        return self._sample(path, self.cache.read(path))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return samples, in order; what is not cached of them is fetched together.

        Raises: as ``__getitem__``, for the first that fails.
        """
        paths = [self.paths[index] for index in indices]
        views = self._views(paths, indices)
        return [self._sample(path, view) for path, view in zip(paths, views, strict=True)]

    def __init_subclass__(cls, **options: Any) -> None:
        """Have a subclass that makes samples in its own way make those of batches so, too."""
        super().__init_subclass__(**options)
        if "__getitem__" in cls.__dict__ and "__getitems__" not in cls.__dict__:
            cls.__getitems__ = _each_sample  # type: ignore[method-assign,assignment]  # else passed by

    def _views(self, paths: Sequence[str], indices: Sequence[int]) -> list[View]:
        """Return views of the objects of a batch, in order."""
        if not isinstance(indices, OrderedBatch):
            views = self.cache.read_many(paths)
        else:
            if self._follower is None:
                self._follower = Follower(self.cache, self.paths)
            views = self._follower.read(indices)
        spare_the_collector()
        return views

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {**self.__dict__, "_follower": None}


def _each_sample(dataset: MapDataset, indices: Sequence[int]) -> list[Any]:
    """Return samples one by one, of objects that are fetched together and held meanwhile."""
    held = dataset._views([dataset.paths[index] for index in indices], indices)
    samples = [dataset[index] for index in indices]
    del held
    return samples


def loader(
    dataset: MapDataset,
    *,
    batch_size: int = 1,
    shuffle: bool = False,
    sampler: Iterable[int] | None = None,
    batch_sampler: Iterable[Sequence[int]] | None = None,
    drop_last: bool = False,
    num_workers: int = 0,
    generator: torch.Generator | None = None,
    **options: Any,
) -> DataLoader[Any]:
    """Return a DataLoader whose workers fetch ahead, in the order of its sampler.

    All arguments are DataLoader's. Where batches reach the workers in another order than in turn
    (``in_order=False``) less is fetched ahead. Raises: TypeError (another option); ValueError (as
    DataLoader).
    """
    refuse_unknown(DataLoader, options)
    if batch_sampler is None:
        if sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        elif shuffle:
            raise ValueError("shuffle: not together with a sampler")
        batch_sampler = BatchSampler(sampler, batch_size, drop_last)
    elif batch_size != 1 or shuffle or sampler is not None or drop_last:
        raise ValueError("batch_sampler: not together with batch_size, shuffle, sampler or drop_last")
    return DataLoader(
        dataset,
        batch_sampler=OrderedBatches(batch_sampler, num_workers),
        num_workers=num_workers,
        generator=generator,
        **options,
    )
