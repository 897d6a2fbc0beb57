"""The C loops of limits.c, built on first use into build/perf and called through ctypes (without the GIL)."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from perf.places import BUILD, ROOT

HERE = Path(__file__).parent
CSRC = ROOT / "csrc"
FLAGS = ("-O3", "-fPIC", "-shared", "-std=gnu11")
CRC_CHUNKS_MAX = 1024  # limits.c keeps this many checksums of a block on its stack
CRC_CHUNK_BYTES = 64 * 1024


def copy_out_ns(buffer: int, blocks: Sequence[int], block_bytes: int) -> int:
    """Copy the blocks at these addresses, one after another, into the buffer; returns nanoseconds."""
    addresses = (ctypes.c_void_p * len(blocks))(*blocks)
    return int(_library().limit_copy_out(buffer, addresses, block_bytes, len(blocks)))


def copy_crc_ns(
    region: int, region_blocks: int, source: int, source_blocks: int, block_bytes: int, count: int
) -> int:
    """Copy `count` blocks into the region with CRC32C fused in; returns nanoseconds."""
    assert block_bytes <= CRC_CHUNKS_MAX * CRC_CHUNK_BYTES
    return int(_library().limit_copy_crc(region, region_blocks, source, source_blocks, block_bytes, count))


def pwrite_ns(file: int, source: int, source_blocks: int, block_bytes: int, count: int) -> int:
    """Append `count` blocks to the file by pwrite; returns nanoseconds. Raises: OSError (short write)."""
    taken = int(_library().limit_pwrite(file, source, source_blocks, block_bytes, count))
    if taken == 0:
        raise OSError("pwrite fell short: is the file system full?")
    return taken


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_build()))
    word, pointer = ctypes.c_uint64, ctypes.c_void_p
    library.limit_copy_out.argtypes = [pointer, pointer, word, word]
    library.limit_copy_crc.argtypes = [pointer, word, pointer, word, word, word]
    library.limit_pwrite.argtypes = [ctypes.c_int, pointer, word, word, word]
    for function in (library.limit_copy_out, library.limit_copy_crc, library.limit_pwrite):
        function.restype = word
    return library


def _build() -> Path:
    """Compile when no library of these very sources is there; racing processes each rename their own."""
    sources = [HERE / "limits.c", *sorted((CSRC / "src").glob("crc32c*.c"))]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = BUILD / "perf"
    target = folder / f"limits-{digest}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / "limits.so"
        includes = (f"-I{CSRC / 'include'}", f"-I{CSRC / 'src'}")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, *FLAGS, *includes, *map(str, sources), "-o", str(built)], check=True)
        built.rename(target)
    return target
