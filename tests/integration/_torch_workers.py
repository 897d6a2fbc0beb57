"""A script: torch workers of one start method on one cache, persistent ones, and one that is killed.

python _torch_workers.py fork|spawn|forkserver CACHE TIER URI

Exits with 0 when every byte was right and nothing is left.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import zlib
from typing import Any, Final

import pytest
from torch.utils.data import DataLoader

from forebay.api.torch import IterableDataset, MapDataset, loader
from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.meta import entries
from tests.faults._child import wait_until
from tests.integration._sites import PATIENCE_S
from tests.integration._torch import COUNT, content, name_of

EPOCHS: Final = 2
_KEPT: Final[list[object]] = []
# One that waits for its turn on a busy machine is not to be taken for one that stands still, and told of.
# The test that imports this has a patience of its own.
if __name__ in ("__main__", "__mp_main__"):
    entries._PATIENCE_S = PATIENCE_S  # type: ignore[misc]


def checksum(path: str, data: Any) -> tuple[str, int, int]:
    """Make a sample of which the parent sees where it came from."""
    return path, zlib.crc32(data), os.getpid()


def checksum_or_die(path: str, data: Any) -> tuple[str, int, int]:
    """The same, but for one object, at which the worker dies with the views that it has."""
    _KEPT.append(data)
    if path == f"d/{name_of(COUNT // 2)}":
        os.kill(os.getpid(), signal.SIGKILL)
    return checksum(path, data)


def persistent(cache: Cache, method: str) -> None:
    """Read some epochs with the same workers, each in another order."""
    expected = {f"d/{name_of(number)}": zlib.crc32(content(number)) for number in range(COUNT)}
    by_number = MapDataset.from_prefix(cache, "d", decode=checksum)
    in_a_row = IterableDataset.from_prefix(cache, "d", decode=checksum, shuffle=True)
    options: dict[str, Any] = {"collate_fn": list, "multiprocessing_context": method}
    options |= {"batch_size": 16, "persistent_workers": True}
    for reading, workers in (
        (loader(by_number, shuffle=True, num_workers=2, **options), 2),
        # The start of a spawned worker is what takes time here.
        (DataLoader(in_a_row, num_workers=1, **options), 1),
    ):
        orders, processes = set(), set()
        for epoch in range(EPOCHS):
            in_a_row.set_epoch(epoch)
            samples = [sample for batch in reading for sample in batch]
            assert len(samples) == COUNT
            assert {path: value for path, value, _ in samples} == expected
            orders.add(tuple(path for path, _, _ in samples))
            processes |= {pid for _, _, pid in samples}
        assert len(orders) == EPOCHS
        assert len(processes) == workers


def killed(cache: Cache, method: str) -> None:
    """Have a worker die in the middle with views in its hands: the DataLoader says so."""
    dataset = MapDataset.from_prefix(cache, "d", decode=checksum_or_die, zero_copy=True)
    reading = loader(dataset, batch_size=16, num_workers=1, multiprocessing_context=method, collate_fn=list)
    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly"):
        list(reading)
    assert cache.read(f"d/{name_of(COUNT // 2)}") == content(COUNT // 2)


def main(method: str, path: str, tier: str, uri: str) -> None:
    """Attach, run, and look at what is left."""
    # A fork server that has torch already starts its workers as quickly as a fork.
    multiprocessing.set_forkserver_preload(["torch", "forebay.api.torch"])
    with Cache(path, [Tier(tier, 64 * MIB, "MEM")], block_bytes=64 * KIB) as cache:
        cache.attach("d", uri, max_age=None)
        persistent(cache, method)
        killed(cache, method)
        # torch does not wait for workers that take more than some seconds to end.
        wait_until(lambda: cache.status()["rows"]["used"] == 1, "the workers end")
        assert cache.status()["holders"] == []
        assert cache.check().ok


if __name__ == "__main__":
    main(*sys.argv[1:])
