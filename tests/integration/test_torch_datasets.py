"""torch datasets over a cache: what they list, what a sample is, how they are divided, what they refuse."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from forebay.api.torch import IterableDataset, MapDataset, TarDataset, loader
from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.errors import ConfigError, ManifestNotFound, NotAttached, NotFound, Stale
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache, counters
from tests.integration._torch import COUNT, SAMPLES, SHARDS, content, name_of, sample_of, shard, tar_of

OBJECTS = {name_of(number): content(number) for number in range(COUNT)} | {"empty": b""}
TARS = {f"{number}.tar": shard(number) for number in range(SHARDS)}
ALL_SAMPLES = [sample_of(shard, number) for shard in range(SHARDS) for number in range(SAMPLES)]


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage(OBJECTS | TARS)


@pytest.fixture
def cache(open_cache: OpenCache, storage: FaultyStorage) -> Cache:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    return cache


def bytes_of(samples: Any) -> list[bytes]:
    return [bytes(sample.numpy()) for sample in samples]


def test_samples_are_the_objects_in_the_order_of_their_paths(cache: Cache) -> None:
    dataset = MapDataset.from_prefix(cache, "d")
    names = sorted(OBJECTS | TARS)
    assert list(dataset.paths) == [f"d/{name}" for name in names]
    assert len(dataset) == len(names)
    for position, path in enumerate(dataset.paths):
        assert bytes(dataset[position].numpy()) == (OBJECTS | TARS)[path[2:]]
    assert bytes_of(dataset.__getitems__([5, 3, -1])) == bytes_of([dataset[5], dataset[3], dataset[-1]])
    with pytest.raises(IndexError, match="sample 124 of 124"):
        dataset[len(names)]


def test_a_glob_is_held_against_the_path_below_the_prefix(cache: Cache) -> None:
    assert len(MapDataset.from_prefix(cache, "d/part1/", glob="*")) == COUNT // 4
    assert list(MapDataset.from_prefix(cache, "d", glob="**/0001").paths) == [f"d/{name_of(1)}"]
    with pytest.raises(ConfigError, match="glob"):
        MapDataset.from_prefix(cache, "d", glob="/x")


def test_what_is_not_there_is_told(cache: Cache) -> None:
    with pytest.raises(ValueError, match=r"d/part1: no object below it matches '\*.jpg'"):
        MapDataset.from_prefix(cache, "d/part1", glob="*.jpg")
    with pytest.raises(NotFound, match="none"):
        IterableDataset.from_prefix(cache, "d/none")
    with pytest.raises(NotAttached, match="did you mean 'd'"):
        TarDataset.from_prefix(cache, "dd")
    absent = MapDataset(cache, ["d/empty", "d/none"])
    with pytest.raises(NotFound, match="none"):
        absent[1]
    with pytest.raises(NotFound, match="none"):
        absent.__getitems__([0, 1])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda cache: MapDataset(cache, [], zero_cpoy=True), "MapDataset.*'zero_cpoy'.*'zero_copy'"),
        (lambda cache: MapDataset.from_prefix(cache, "d", golb="*"), "MapDataset.*'golb'.*'glob'"),
        (lambda cache: IterableDataset.from_manifest(cache, "d", shufle=True), "'shufle'.*'shuffle'"),
        (lambda cache: TarDataset(cache, [], world=3), "TarDataset.*'world'"),
        (lambda cache: loader(MapDataset(cache, ["d/a"]), num_worker=1), "'num_worker'.*'num_workers'"),
        (lambda cache: MapDataset(cache, "d/a"), "not the one path 'd/a'"),
        (lambda cache: MapDataset(cache, ["d/a", 3]), "got int at 1"),  # type: ignore[list-item]  # wrong on purpose
        (lambda cache: MapDataset(cache, [], decode="jpg"), "decode: .* got str"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_wrong_options_are_type_errors_that_name_the_nearest(cache: Cache, make: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        make(cache)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rank": 1}, "both or neither"),
        ({"rank": 2, "world_size": 2}, "2 is not one of 2"),
        ({"rank": -1, "world_size": 2}, "-1 is not one of 2"),
    ],
)
def test_a_shard_that_there_is_not_is_refused(cache: Cache, options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        IterableDataset(cache, [], **options)


def test_samples_are_the_readers_own(cache: Cache) -> None:
    dataset = MapDataset.from_prefix(cache, "d/part0")
    for sample in (dataset[0], dataset.__getitems__([0])[0]):
        sample.add_(1)
        sample.resize_(7)
    assert bytes(dataset[0].numpy()) == content(0)
    decoded = MapDataset.from_prefix(cache, "d/part0", decode=lambda path, data: (path, data))
    path, data = decoded[1]
    data += b"more"
    assert (path, bytes(decoded[1][1])) == (f"d/{name_of(1)}", content(1))


class Labelled(MapDataset):
    """Samples with their paths, as users of torch write it."""

    def __getitem__(self, index: int) -> Any:
        return bytes(super().__getitem__(index).numpy()), self.paths[index]


class Reversed(Labelled):
    """One that makes batches as well."""

    def __getitems__(self, indices: Any) -> list[Any]:
        return super().__getitems__(indices)[::-1]


def test_a_subclass_that_makes_samples_makes_those_of_batches_too(
    cache: Cache, storage: FaultyStorage
) -> None:
    dataset = Labelled.from_prefix(cache, "d/part0")
    made = [dataset[number] for number in range(len(dataset))]
    assert made[1] == (content(1), f"d/{name_of(1)}")
    cache.free("d", data=True)
    storage.calls.clear()
    for reading in (DataLoader(dataset, batch_size=7), loader(dataset, batch_size=7)):
        assert [sample for batch in reading for sample in zip(*batch, strict=True)] == made
        # Fetched once, and together.
        assert storage.calls["read_range"] == len(dataset)
    assert Reversed.from_prefix(cache, "d/part0").__getitems__([0, 1]) == [made[1], made[0]]


def test_zero_copy_samples_keep_the_cached_bytes_in_place(cache: Cache) -> None:
    dataset = MapDataset.from_prefix(cache, "d/part0", zero_copy=True)
    cache.load("d/part0", wait=True)
    first, again = dataset[0], dataset[0]
    assert first.data_ptr() == again.data_ptr()
    cache.free("d")
    cache.detach("d")
    assert bytes(first.numpy()) == content(0)
    del again


def test_what_is_pickled_is_a_directory_and_options(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")
    with Cache(cache.path) as plain:
        dataset = MapDataset(plain, [f"d/{name_of(0)}"])
        pickled = pickle.dumps(dataset)
        assert b"a-secret-of-mine" not in pickled
        other = pickle.loads(pickled)
        assert list(other.paths) == list(dataset.paths)
        assert other.cache.path == cache.path
        other.cache.close()


def test_a_manifest_keeps_its_dataset_to_one_version(cache: Cache, storage: FaultyStorage) -> None:
    with pytest.raises(ConfigError, match="'d' has no manifest in use"):
        MapDataset.from_manifest(cache, "d")
    lines = io.BytesIO(
        b"".join(
            b'{"path": "%s", "size": %d, "version": "%s"}\n'
            % (name.encode(), len(OBJECTS[name]), storage.stat(name).version.encode())
            for name in (name_of(2), name_of(0))
        )
    )
    cache.import_manifest("d", "v1", lines, ordered=True, use=True)
    dataset = MapDataset.from_manifest(cache, "d")
    assert list(dataset.paths) == [f"d@v1/{name_of(2)}", f"d@v1/{name_of(0)}"]
    cache.use_manifest("d", None)
    assert bytes_of(dataset.__getitems__([0, 1])) == [content(2), content(0)]
    assert len(MapDataset.from_manifest(cache, "d", "v1", glob="*/0000")) == 1
    with pytest.raises(ManifestNotFound, match="v2"):
        MapDataset.from_manifest(cache, "d", "v2")


def test_ranks_and_workers_share_all_samples_and_each_epoch_has_an_order(cache: Cache) -> None:
    orders = []
    for epoch in (0, 1):
        given = []
        for rank in range(3):
            dataset = IterableDataset.from_prefix(
                cache, "d", glob="part*/*", shuffle=True, seed=5, rank=rank, world_size=3
            )
            dataset.set_epoch(epoch)
            assert len(dataset) == COUNT // 3
            own = bytes_of(
                DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
            )
            assert len(own) == COUNT // 3
            given += own
        assert sorted(given) == sorted(content(number) for number in range(COUNT))
        orders.append(given)
    assert orders[0] != orders[1]


def test_a_process_group_says_which_rank_it_is(cache: Cache, tmp_path: Path) -> None:
    dataset = IterableDataset(cache, [f"d/{name_of(number)}" for number in range(5)])
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert len(dataset) == 5
        # A spawned worker is in no group, and is told on its way.
        state = dataset.__getstate__()
        assert (state["_rank"], state["_world_size"]) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


def shard_of(rank: int, pickled: bytes, group: str, found: Any) -> None:
    """Join a process group, and say which samples are this rank's."""
    torch.distributed.init_process_group("gloo", f"file://{group}", rank=rank, world_size=2)
    dataset = pickle.loads(pickled)
    found.put([int(bytes(sample.numpy())[:8]) for sample in dataset])
    dataset.cache.close()
    torch.distributed.destroy_process_group()


def test_a_dataset_pickled_before_there_are_ranks_is_divided_among_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(5):
        (tmp_path / f"data/{number}").write_bytes(content(number))
    with Cache(tmp_path / "cache", [Tier(str(tmp_path / "tier"), 16 * MIB, "SSD")]) as cache:
        cache.attach("f", (tmp_path / "data").as_uri(), max_age=None)
        pickled = pickle.dumps(IterableDataset.from_prefix(cache, "f"))
        context = multiprocessing.get_context("fork")
        found = context.Queue()
        arguments = (pickled, str(tmp_path / "group"), found)
        ranks = [context.Process(target=shard_of, args=(rank, *arguments)) for rank in range(2)]
        for each in ranks:
            each.start()
        assert sorted(found.get(timeout=120) for _ in ranks) == [[0, 2, 4], [1, 3]]
        for each in ranks:
            each.join()


def test_an_epoch_reaches_workers_that_persist_also_of_a_copy(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(40):
        (tmp_path / f"data/{number}").write_bytes(b"%d" % number)
    with Cache(tmp_path / "cache", [Tier(str(tmp_path / "tier"), 16 * MIB, "SSD")]) as cache:
        cache.attach("f", (tmp_path / "data").as_uri(), max_age=None)
        made = IterableDataset.from_prefix(cache, "f", shuffle=True)
        made.set_epoch(3)
        for dataset in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
            options: Any = {"multiprocessing_context": "fork", "persistent_workers": True}
            reading = DataLoader(dataset, batch_size=None, num_workers=1, **options)
            epochs = [bytes_of(reading)]
            dataset.set_epoch(4)
            epochs.append(bytes_of(reading))
            assert epochs[0] == bytes_of(made)
            assert epochs[0] != epochs[1]
            dataset.cache.close()


def test_tar_shards_come_as_samples(cache: Cache) -> None:
    dataset = TarDataset.from_prefix(cache, "d", glob="*.tar")
    assert list(dataset) == ALL_SAMPLES
    keys = TarDataset.from_prefix(cache, "d", glob="*.tar", decode=lambda sample: sample["cls"], shuffle=True)
    shared = DataLoader(keys, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(shared) == sorted(sample["cls"] for sample in ALL_SAMPLES)


def test_members_that_are_no_part_of_a_sample_are_left_out(cache: Cache, storage: FaultyStorage) -> None:
    storage.put(
        "odd.tar", tar_of([("README", b"x"), (".hidden", b"x"), ("dir.x/a.JPG", b"1"), ("dir.x/b.c.d", b"2")])
    )
    assert [{**sample, "__url__": ""} for sample in TarDataset(cache, ["d/odd.tar"])] == [
        {"__key__": "dir.x/a", "__url__": "", "jpg": b"1"},
        {"__key__": "dir.x/b", "__url__": "", "c.d": b"2"},
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "d/bad.tar: no sound tar archive, at byte 0"),
        (b"no tar" * 500, "d/bad.tar: no sound tar archive, at byte 0"),
        (shard(0)[:2_000], "d/bad.tar: no sound tar archive"),
        # In a header, after which a lenient reader would see the end of the archive.
        (shard(0)[:2_048] + b"\xff" * 512 + shard(0)[2_560:], "what is at byte 2048 is no member"),
        (tar_of([("a.x", b"1"), ("a.x", b"2")]), "sample 'a' has 'x' twice"),
        # Between two members, and behind the last: nothing is damaged in what is left.
        (shard(0)[:2_048], "no end is marked at byte 2048"),
        (tar_of([("a.x", b"1")])[:1_024], "no end is marked at byte 1024"),
        (tar_of([("a.x", b"1")]) + tar_of([("b.x", b"2")]), "behind its end, at byte 10240"),
        (tar_of([("a.x", b"1")]) + b"more", "behind its end, at byte 10240"),
    ],
)
def test_a_damaged_shard_is_told_and_never_cut_short(
    cache: Cache, storage: FaultyStorage, data: bytes, told: str
) -> None:
    storage.put("bad.tar", data)
    with pytest.raises(ValueError, match=told):
        list(TarDataset(cache, ["d/bad.tar"]))


def test_a_shard_may_be_empty_and_its_end_as_short_as_can_be(cache: Cache, storage: FaultyStorage) -> None:
    for end in (512, 1_024, 20_480, 3 << 20):
        storage.put("short.tar", tar_of([("a.x", b"1")])[:1_024] + bytes(end))
        storage.put("empty.tar", bytes(end))
        cache.free("d", metadata=True)
        assert [sample["x"] for sample in TarDataset(cache, ["d/empty.tar", "d/short.tar"])] == [b"1"]


def test_members_of_every_kind_of_header(cache: Cache, storage: FaultyStorage) -> None:
    name = f"{'directory.x/' * 20}{'n' * 150}.seg.png"
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for type_ in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
                other = tarfile.TarInfo("other.x")
                other.type, other.linkname = type_, "a.x"
                archive.addfile(other)
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 3, {"comment": "\N{SNOWMAN}"}
            archive.addfile(member, io.BytesIO(b"png"))
        storage.put("kinds.tar", buffer.getvalue())
        cache.free("d", metadata=True)
        (sample,) = TarDataset(cache, ["d/kinds.tar"])
        assert (sample["__key__"], sample["seg.png"]) == (name.removesuffix(".seg.png"), b"png")


def test_a_dataset_detached_under_open_files_ends_with_an_error(cache: Cache) -> None:
    samples = iter(TarDataset(cache, ["d/0.tar", "d/1.tar"]))
    in_a_row = iter(IterableDataset.from_prefix(cache, "d/part0"))
    batches = iter(loader(MapDataset.from_prefix(cache, "d"), batch_size=4, collate_fn=list))
    kept = [next(samples)["__key__"], next(in_a_row), next(batches)]
    cache.detach("d")
    for each in (samples, in_a_row, batches):
        with pytest.raises((NotAttached, Stale)):
            list(each)
    assert bytes(kept[1].numpy()) == content(0)
    assert cache.check().ok


def save_what_cannot_be_pickled(cache: Cache) -> None:
    with cache.open("w/run/last.pt", "wb") as file:
        torch.save({"step": 3, "act": lambda: None}, file)  # type: ignore[arg-type]  # as below


def test_a_torch_checkpoint_is_written_whole_and_read_again(open_cache: OpenCache, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    cache = open_cache()
    cache.attach("w", (tmp_path / "data").as_uri(), writable=True, write_mode="cache_through")
    model = torch.nn.Linear(300, 200)
    for step in (1, 2):
        with cache.open("w/run/last.pt", "wb") as file:
            torch.save({"step": step, "model": model.state_dict()}, file)  # type: ignore[arg-type]  # write() is all it needs
    with pytest.raises(AttributeError, match="pickle"):
        save_what_cannot_be_pickled(cache)
    with cache.open("w/run/last.pt") as file:
        state = torch.load(file)  # type: ignore[arg-type]  # a binary file that seeks
    assert state["step"] == 2
    assert torch.equal(state["model"]["weight"], model.weight)
    # Anybody reads it without forebay.
    assert torch.load(tmp_path / "data/run/last.pt")["step"] == 2
    assert counters(cache)["source_bytes"] == 0


def test_read_many_counts_a_hit_once(cache: Cache) -> None:
    dataset = MapDataset.from_prefix(cache, "d/part0")
    half = range(0, len(dataset), 2)
    dataset.__getitems__(half)
    before = counters(cache)
    dataset.__getitems__(range(len(dataset)))
    after = counters(cache)
    assert after["hits_mem"] - before["hits_mem"] == len(half)
