"""``forebay://dataset/path`` for whatever speaks fsspec: pandas, dask, pyarrow, zarr and others.

Paths and what they promise are the Cache's; nothing is cached here, no listing and no byte. The blocking
methods call the cache in the calling thread: a hit costs no turn of an event loop. The asynchronous ones look
first whether the answer is at hand, and go to a thread if it is not.
"""

from __future__ import annotations

from typing import final

from forebay.api._fsspec_writes import Writes

__all__ = ["ForebayFileSystem"]


@final
class ForebayFileSystem(Writes):
    """The attached datasets of a cache as a file system of fsspec.

    Options are those of ``forebay.open`` (cache_dir, config_file, group and others). An instance pickles as
    its options, which hold no secrets, and survives a fork. Threads: any.
    """
