"""Placement against a plain reference in floating point, and its refusals."""

from __future__ import annotations

import math
import random
import struct
import threading

import mmh3
import pytest

from forebay.errors import ConfigError
from forebay.peer._placement import MEMBERS_MAX, WEIGHT_MAX, WEIGHT_MIN, WEIGHT_ONE, Placement, key_of

MASK = (1 << 64) - 1


def murmur(data: bytes) -> tuple[int, int]:
    first, second = mmh3.hash64(data, 0, x64arch=True, signed=False)
    return first, second


def mixed(word: int) -> int:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def reference(ids: list[bytes], weights: list[int], zones: list[int], key: int) -> list[int]:
    """All members by rank."""

    def draw(number: int) -> float:
        word = mixed(key ^ murmur(ids[number])[0])
        return -math.log2(max(word, 1) / 2**64) / weights[number]

    left = sorted(range(len(ids)), key=draw)
    ranks: list[int] = []
    while left:
        used = {zones[number] for number in ranks}
        best = next((number for number in left if zones[number] not in used), left[0])
        ranks.append(best)
        left.remove(best)
    return ranks


def made(ids: list[bytes], weights: list[int], zones: list[int]) -> Placement[int]:
    return Placement(tuple(range(len(ids))), ids, weights, zones)


def ids_of(count: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return sorted(source.randbytes(16) for _ in range(count))


@pytest.mark.parametrize("weights", [[WEIGHT_ONE], [WEIGHT_ONE, 3 * WEIGHT_ONE, WEIGHT_MAX, WEIGHT_MIN]])
@pytest.mark.parametrize("zone_count", [1, 3, 20])
def test_ranks_are_the_reference_s(weights: list[int], zone_count: int) -> None:
    source, ids = random.Random(2), ids_of(20)
    chosen = [source.choice(weights) for _ in ids]
    zones = [source.randrange(zone_count) for _ in ids]
    placement = made(ids, chosen, zones)
    for _ in range(300):
        key = source.getrandbits(64)
        assert list(placement.rank(key, 20)) == reference(ids, chosen, zones, key)


@pytest.mark.parametrize(
    ("dataset", "path"),
    [("", ""), ("d", "a/b"), ("d", b"a/b\xff"), ("dätä", "a/\udcff€"), ("d" * 99, "p" * 5000)],
)
def test_keys_are_murmur_of_name_path_and_run(dataset: str, path: str | bytes) -> None:
    encoded = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    for run in (0, 1, (1 << 64) - 1):
        words = (*murmur(dataset.encode()), *murmur(encoded), run)
        assert key_of(dataset, path, run) == murmur(struct.pack("<5Q", *words))[0]


def test_a_path_is_its_bytes() -> None:
    assert key_of("d", "a/é\udcff", 1) == key_of("d", "a/é".encode() + b"\xff", 1)
    assert key_of("da", "b", 1) != key_of("d", "ab", 1)


def test_who_is_skipped_leaves_the_others_in_their_order() -> None:
    placement = made(ids_of(9), [WEIGHT_ONE] * 9, [number % 3 for number in range(9)])
    for key in range(200):
        ranks = placement.rank(key, 9)
        skipped = bytes(number in ranks[:2] for number in range(9))
        assert placement.rank(key, 9, skipped) == ranks[2:]
        assert placement.rank(key, 1, skipped) == ranks[2:3]


def test_owners_are_the_ranks_of_the_key() -> None:
    placement = made(ids_of(9), [WEIGHT_ONE] * 9, [0] * 9)
    assert placement.owners("d", "a/é", 7, 3) == placement.rank(key_of("d", "a/é", 7), 3)


def test_many_threads_may_ask() -> None:
    placement = made(ids_of(50), [WEIGHT_ONE + number for number in range(50)], [0] * 50)
    expected = [placement.rank(key, 3) for key in range(500)]
    found: list[list[tuple[int, ...]]] = []
    threads = [
        threading.Thread(target=lambda: found.append([placement.rank(key, 3) for key in range(500)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize(
    ("ids", "weights", "zones"),
    [
        ([b"b" * 16, b"a" * 16], [WEIGHT_ONE] * 2, [0, 0]),
        ([b"a" * 16, b"a" * 16], [WEIGHT_ONE] * 2, [0, 0]),
        ([b"a" * 15], [WEIGHT_ONE], [0]),
        ([b"a" * 16], [0], [0]),
        ([b"a" * 16], [WEIGHT_MAX + 1], [0]),
        ([b"a" * 16], [WEIGHT_ONE], [1]),
        ([b"a" * 16], [], [0]),
    ],
)
def test_what_cannot_be_placed_is_refused(ids: list[bytes], weights: list[int], zones: list[int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        made(ids, weights, zones)


def test_too_many_members_are_refused() -> None:
    count = MEMBERS_MAX + 1
    with pytest.raises(ConfigError, match=f"{count} members, at most {MEMBERS_MAX}"):
        made([b""] * count, [WEIGHT_ONE] * count, [0] * count)


def test_wrong_arguments_are_refused() -> None:
    placement = made(ids_of(3), [WEIGHT_ONE] * 3, [0] * 3)
    with pytest.raises(ValueError, match="negative"):
        placement.rank(1, -1)
    with pytest.raises(ValueError, match="2 marks for 3 members"):
        placement.rank(1, 1, b"\0\0")
    with pytest.raises(OverflowError):
        placement.owners("d", "p", -1, 1)
    with pytest.raises(OverflowError):
        key_of("d", "p", 1 << 64)
    with pytest.raises(TypeError):
        key_of("d", 5, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        key_of(None, "p", 1)  # type: ignore[arg-type]
