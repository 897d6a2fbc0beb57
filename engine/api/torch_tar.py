"""Samples in tar shards, in the layout of webdataset: members that share a name up to its first dot.

Shards are read as streams, with the cache's readahead, and divided among ranks and workers as a whole.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from forebay.api.torch_iterable import Sharded
from forebay.api.torch_samples import refuse_unknown
from forebay.api.torch_worker import spare_the_collector

if TYPE_CHECKING:
    from forebay.cache import Cache, CachedFile

# A dot in the name of a directory separates nothing; what begins with a dot belongs to no sample.
_NAME: Final = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_STEP_BYTES: Final = 1 << 20


class TarDataset(Sharded):
    """The samples of tar shards, one after another.

    A sample is ``{"__key__": name, "__url__": path of the shard, "jpg": bytes, "cls": bytes, ...}``. Every
    shard is given by one worker of one rank: with fewer shards than workers some have nothing to do.
    """

    def __init__(
        self,
        cache: Cache,
        paths: Iterable[str],
        *,
        decode: Callable[[dict[str, Any]], Any] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        **unknown: Any,
    ) -> None:
        """Make a dataset of the shards at these paths; decode(sample) makes of each what is given.

        shuffle: shards in an order that seed and epoch (``set_epoch``) make; samples stay in that of their
        shard. All else as for IterableDataset. Raises: TypeError (another option); ValueError (no such rank).
        """
        refuse_unknown(TarDataset, unknown)
        super().__init__(cache, paths, None, False, shuffle, seed, rank, world_size)
        self._decode_sample: Final = decode

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's samples. Raises: ValueError (a damaged shard; says where); as `Cache.open`."""
        for path in self._own():
            with self.cache.open(path) as file:
                for sample in _samples(file, path):
                    spare_the_collector()
                    yield sample if self._decode_sample is None else self._decode_sample(sample)


def _samples(file: CachedFile, path: str) -> Iterator[dict[str, Any]]:
    """Put members that follow each other together by the first part of their names."""
    sample: dict[str, Any] = {}
    for name, data in _members(file, path):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        key, extension = match[1], match[2].lower()
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        if not sample:
            sample = {"__key__": key, "__url__": path}
        if extension in sample:
            raise ValueError(f"{path}: sample {key!r} has {extension!r} twice")
        sample[extension] = data
    if sample:
        yield sample


def _members(file: CachedFile, path: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the files of an archive. Raises: ValueError (it is damaged)."""
    offset = 0
    try:
        with tarfile.open(fileobj=file, mode="r|", bufsize=_STEP_BYTES) as archive:
            for member in archive:
                offset = member.offset
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content.read()
                # It keeps a list of all that it has seen.
                archive.members.clear()  # type: ignore[attr-defined]  # the documented list of getmembers()
            offset = archive.offset
    except tarfile.TarError as error:
        raise ValueError(f"{path}: no sound tar archive, at byte {offset}: {error}") from error
    _check_end(file, offset, path)


def _check_end(file: CachedFile, offset: int, path: str) -> None:
    """See that the last member is followed by a block of zeros, and by nothing else.

    tarfile takes a header that makes no sense, and the file's own end, for the archive's. Raises: ValueError.
    """
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if any(block):
        raise ValueError(f"{path}: no sound tar archive: what is at byte {offset} is no member")
    if len(block) < tarfile.BLOCKSIZE:
        raise ValueError(f"{path}: no sound tar archive: no end is marked at byte {offset}; it is cut off")
    while step := file.read(_STEP_BYTES):
        if rest := step.lstrip(b"\0"):
            more = file.tell() - len(rest)
            raise ValueError(f"{path}: no sound tar archive: there is more behind its end, at byte {more}")
