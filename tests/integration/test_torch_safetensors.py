"""safetensors files over cached bytes: the same tensors as the format's own library, or a clear error."""

from __future__ import annotations

import gc
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from forebay.api.torch import load_safetensors, map_safetensors
from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache

KINDS = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex64),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
]
TENSORS = {f"kind{number}": torch.arange(12).reshape(3, 4).to(kind) for number, kind in enumerate(KINDS)} | {
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 7, dtype=torch.int16),
}
LARGE = {f"layer{number}": torch.randn(64, 257) for number in range(20)}
LOADERS = [map_safetensors, load_safetensors]


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage({"small": safetensors.torch.save(TENSORS), "large": safetensors.torch.save(LARGE)})


@pytest.fixture
def cache(open_cache: OpenCache, storage: FaultyStorage) -> Cache:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    return cache


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape)
        # There is no comparing of all types; of their bytes there is.
        and torch.equal(tensor.reshape(-1).view(torch.uint8), expected[name].reshape(-1).view(torch.uint8))
        for name, tensor in found.items()
    )


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(("name", "expected"), [("small", TENSORS), ("large", LARGE)])
def test_tensors_are_those_that_were_written(
    cache: Cache, load: Any, name: str, expected: dict[str, torch.Tensor]
) -> None:
    for _ in range(2):
        assert same(load(cache, f"d/{name}"), expected)


def test_a_file_of_many_blocks_that_lies_whole_is_mapped(cache: Cache) -> None:
    first, again = (map_safetensors(cache, "d/large") for _ in range(2))
    held = cache.status()["counters"]["source_bytes"]
    assert first["layer0"].data_ptr() == again["layer0"].data_ptr()
    # The bytes stay put as long as there is a tensor over any of them.
    kept = first["layer19"]
    del first, again
    gc.collect()
    cache.free("d")
    cache.detach("d")
    assert torch.equal(kept, LARGE["layer19"])
    assert cache.status()["counters"]["source_bytes"] == held


def test_a_file_too_large_for_one_read_is_loaded_all_the_same(
    open_cache: OpenCache, storage: FaultyStorage
) -> None:
    cache = open_cache(schemes=storage.schemes(), max_read_bytes=256 * KIB)
    cache.attach("d", "faulty://x", max_age=None)
    # Its blocks are cached one by one, so it never lies whole.
    for offset in range(0, len(storage.content("large")[0]), 64 * KIB):  # type: ignore[index]  # it is there
        cache.read("d/large", offset, 64 * KIB).release()
    assert same(map_safetensors(cache, "d/large"), LARGE)


def test_loaded_tensors_may_be_written_to_and_mapped_ones_end_the_process(
    tmp_path: Path, memory_path: Path, repository: Path
) -> None:
    """The hazard that the docs tell of, so that they stop telling of it once it is gone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_bytes(safetensors.torch.save(TENSORS))
    script = f"""
import forebay
from forebay.api.torch import load_safetensors, map_safetensors
cache = forebay.Cache({str(tmp_path / "cache")!r}, [forebay.Tier({str(memory_path)!r}, "16MiB", "MEM")])
cache.attach("d", {(tmp_path / "data").as_uri()!r}, max_age=None)
cache.read("d/x").release()
load_safetensors(cache, "d/x")["kind1"].add_(1)
print("written", flush=True)
map_safetensors(cache, "d/x")["kind1"].add_(1)
print("unreached")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("written\n", -11)


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def described(dtype: str = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "0 bytes are too few"),
        (b"1234567", "7 bytes are too few"),
        (file_of({}, length=100), "too few for the header"),
        (file_of({}, length=1 << 63), "too few for the header"),
        (file_of(b"{no json"), "d/bad: no sound safetensors file"),
        (file_of(b"\xff\xfe"), "d/bad: no sound safetensors file"),
        (file_of([]), "its header is a list"),
        (file_of({"a": 3}), "d/bad: no sound safetensors file"),
        (file_of({"a": {"dtype": "U8"}}), "shape"),
        (file_of(described("X9"), b"1234"), "'a' is of the unknown type 'X9'"),
        (file_of(described(["U8"]), b"1234"), "d/bad: no sound"),  # type: ignore[arg-type]  # wrong on purpose
        (file_of(described(shape=(5,)), b"1234"), r"'a' of shape \[5\] does not take 4 bytes"),
        (file_of(described(shape=(-4,)), b"1234"), "shape or place that is none"),
        (file_of(described(shape=(1 << 62, 8), offsets=(0, 0)), b""), "does not take 0 bytes"),
        (file_of(described(offsets=(1, 5)), b"12345"), "does not begin where the one before ends"),
        (file_of(described(offsets=(0, 1 << 70)), b"1234"), "does not take"),
        (file_of(described(), b"123"), "end at byte"),
        (file_of(described(), b"12345"), "end at byte"),
        (file_of(b"[" * 100_000), "d/bad: no sound safetensors file"),
        (file_of(described(shape=(1 << 62, 4, 0), offsets=(0, 0))), "'a' has a shape that is too large"),
        (file_of(described(shape=(1 << 70, 0), offsets=(0, 0))), "'a' has a shape that is too large"),
        (file_of({**described(), "b": described()["a"]}, b"1234"), "'b' does not begin where"),
    ],
)
def test_a_file_that_is_none_is_told(
    cache: Cache, storage: FaultyStorage, load: Any, data: bytes, told: str
) -> None:
    storage.put("bad", data)
    with pytest.raises(ValueError, match=told):
        load(cache, "d/bad")


def test_of_a_file_that_is_none_only_the_header_is_read(cache: Cache, storage: FaultyStorage) -> None:
    storage.put("bad", file_of(described(), bytes(4 * MIB)))
    with pytest.raises(ValueError, match="end at byte"):
        load_safetensors(cache, "d/bad")
    assert cache.status()["counters"]["source_bytes"] <= 2 * MIB


@pytest.mark.parametrize("load", LOADERS)
def test_tensors_that_are_not_aligned_are_right_all_the_same(
    cache: Cache, storage: FaultyStorage, load: Any
) -> None:
    header = json.dumps(described("F32", (1,))).encode()
    storage.put("odd", file_of(header + b" " * (1 - len(header) % 2), struct.pack("<f", 2.5)))
    assert load(cache, "d/odd")["a"].tolist() == [2.5]
