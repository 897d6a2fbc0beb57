"""torch workers of every start method: the right bytes, and a cache in order whatever becomes of them."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from forebay.api.torch import IterableDataset, MapDataset, loader
from forebay.cache import Cache
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import wait_until
from tests.integration import _torch, _torch_workers
from tests.integration._sites import OpenCache, write_files

WAIT_S = 60


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_persist_and_die(method: str, tmp_path: Path, memory_path: Path, repository: Path) -> None:
    numbers = range(_torch.COUNT)
    write_files(tmp_path / "data", {_torch.name_of(each): _torch.content(each) for each in numbers})
    arguments = (method, str(tmp_path / "cache"), str(memory_path), (tmp_path / "data").as_uri())
    command = [sys.executable, "-m", _torch_workers.__name__, *arguments]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=4 * WAIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Cache(tmp_path / "cache") as cache:
        assert cache.read(f"d/{_torch.name_of(3)}") == _torch.content(3)
        assert cache.check().ok


def test_workers_forked_while_the_parent_fetches_wait_for_it(open_cache: OpenCache) -> None:
    objects = {f"{number}": b"%d" % number * 1_000 for number in range(20)}
    storage = FaultyStorage(objects)
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    cache.load("d", metadata_only=True, wait=True)
    fetching, may_go_on = threading.Event(), threading.Event()

    def hold() -> None:
        fetching.set()
        assert may_go_on.wait(WAIT_S)

    storage.script("read_range", hold)
    parent = threading.Thread(target=lambda: cache.read("d/19").release())
    parent.start()
    assert fetching.wait(WAIT_S)
    dataset = MapDataset(cache, [f"d/{number}" for number in range(20)])
    # The forked worker has the storage as it is by then: only the first read of it was held up.
    found = []
    for batch in loader(
        dataset, batch_size=2, num_workers=1, multiprocessing_context="fork", collate_fn=list
    ):
        found += [bytes(sample.numpy()) for sample in batch]
        may_go_on.set()
    parent.join(WAIT_S)
    assert found == list(objects.values())
    # torch does not wait for a worker that takes more than some seconds to end.
    wait_until(lambda: cache.status()["rows"]["used"] == 1, "the worker ends")
    assert cache.check().ok


def frozen(path: str, data: Any) -> int:
    return gc.get_freeze_count()


@pytest.mark.parametrize("kind", [MapDataset, IterableDataset])
def test_the_collector_passes_by_what_a_worker_has_loaded(open_cache: OpenCache, kind: Any) -> None:
    storage = FaultyStorage({f"{number}": b"%d" % number for number in range(8)})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    dataset = kind.from_prefix(cache, "d", decode=frozen)
    options: dict[str, Any] = {"batch_size": 2, "collate_fn": list, "multiprocessing_context": "fork"}
    for batch in DataLoader(dataset, num_workers=2, **options):
        assert all(count > 10_000 for count in batch)
    assert gc.get_freeze_count() == 0
    assert [count for batch in DataLoader(dataset, batch_size=2, collate_fn=list) for count in batch] == [
        0
    ] * 8
