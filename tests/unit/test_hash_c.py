"""The C library's murmur is mmh3's: placement agrees between Python and C, and between hosts."""

from __future__ import annotations

import ctypes
import random
import subprocess
from pathlib import Path

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

Words = ctypes.c_uint64 * 2


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
