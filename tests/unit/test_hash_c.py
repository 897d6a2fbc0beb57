"""The C library's hashes are the published ones: placement agrees between Python and C, and between hosts."""

from __future__ import annotations

import ctypes
import random
import struct
import subprocess
from pathlib import Path

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

Words = ctypes.c_uint64 * 2
MASK = (1 << 64) - 1


@pytest.fixture(scope="module")
def library(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("hash") / "hash.so"
    include, source = repository / "csrc/include", repository / "csrc/src/hash.c"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{include}"]
    subprocess.run(["cc", *flags, "-o", path, source], check=True)
    library = ctypes.CDLL(str(path))
    library.fb_murmur3_x64_128.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, Words]
    library.fb_murmur3_x64_128.restype = None
    library.fb_siphash13.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.fb_siphash13.restype = ctypes.c_uint64
    library.fb_siphash13_128.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, Words]
    library.fb_siphash13_128.restype = None
    return library


def murmur(library: ctypes.CDLL, data: bytes, seed: int = 0) -> tuple[int, int]:
    out = Words()
    library.fb_murmur3_x64_128(data, len(data), seed, out)
    return out[0], out[1]


@pytest.mark.parametrize("seed", [0, 1, 0x9747B28C, 0xFFFFFFFF])
def test_murmur_agrees_with_mmh3_at_every_length(library: ctypes.CDLL, seed: int) -> None:
    data = random.Random(1).randbytes(4096)
    for length in (*range(100), 255, 256, 257, 1023, 4095, 4096):
        expected = mmh3.hash64(data[:length], seed, x64arch=True, signed=False)
        assert murmur(library, data[:length], seed) == expected


@given(data=st.binary(max_size=300), seed=st.integers(0, 2**32 - 1))
def test_murmur_agrees_with_mmh3_on_anything(library: ctypes.CDLL, data: bytes, seed: int) -> None:
    assert murmur(library, data, seed) == mmh3.hash64(data, seed, x64arch=True, signed=False)


def test_the_check_is_keyed(library: ctypes.CDLL) -> None:
    """Without the secret nobody can choose two keys that agree in it."""
    seen = {library.fb_siphash13(random.Random(seed).randbytes(16), b"key", 3) for seed in range(100)}
    assert len(seen) == 100


def rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & MASK


def sip_rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0], v[2] = (v[0] + v[1]) & MASK, (v[2] + v[3]) & MASK
        v[1], v[3] = rotated(v[1], 13) ^ v[0], rotated(v[3], 16) ^ v[2]
        v[0] = rotated(v[0], 32)
        v[2], v[0] = (v[2] + v[1]) & MASK, (v[0] + v[3]) & MASK
        v[1], v[3] = rotated(v[1], 17) ^ v[2], rotated(v[3], 21) ^ v[0]
        v[2] = rotated(v[2], 32)


def siphash_128(secret: bytes, data: bytes, c: int, d: int) -> tuple[int, int]:
    """SipHash-c-d with an output of 128 bits, as its authors' reference has it."""
    k0, k1 = struct.unpack("<QQ", secret)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    v[1] ^= 0xEE
    whole = len(data) // 8 * 8
    last = len(data) % 256 << 56 | int.from_bytes(data[whole:], "little")
    for word in (*struct.unpack(f"<{whole // 8}Q", data[:whole]), last):
        v[3] ^= word
        sip_rounds(v, c)
        v[0] ^= word
    v[2] ^= 0xEE
    sip_rounds(v, d)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    sip_rounds(v, d)
    return first, v[0] ^ v[1] ^ v[2] ^ v[3]


@pytest.mark.parametrize(
    ("data", "published"),
    [(b"", "a3817f04ba25a8e66df67214c7550293"), (b"\0", "da87c1d86b99af44347659119b22fc45")],
)
def test_the_reference_gives_the_published_answers(data: bytes, published: str) -> None:
    """Of SipHash-2-4-128; nobody published any for 1 and 3 rounds."""
    assert struct.pack("<QQ", *siphash_128(bytes(range(16)), data, 2, 4)).hex() == published


def test_the_hash_of_128_bits_is_the_reference_s_at_every_length(library: ctypes.CDLL) -> None:
    secret, data = random.Random(2).randbytes(16), random.Random(3).randbytes(300)
    for length in range(300):
        out = Words()
        library.fb_siphash13_128(secret, data[:length], length, out)
        assert (out[0], out[1]) == siphash_128(secret, data[:length], 1, 3)
