"""Where measurements put their files: tmpfs for the MEM tier and its rivals, build/perf for disk tiers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
SHM = Path("/dev/shm")


@contextmanager
def memory_folder(room_bytes: int) -> Iterator[Path]:
    """Give a folder on tmpfs and remove it afterwards.

    Raises: OSError (less than room_bytes free there: figures of another medium would mislead).
    """
    free = shutil.disk_usage(SHM).free
    if free < room_bytes:
        raise OSError(f"{SHM}: {free >> 20} MiB free, this case needs {room_bytes >> 20} MiB")
    with _scratch(SHM) as folder:
        yield folder


@contextmanager
def disk_folder() -> Iterator[Path]:
    """Give a folder on the file system of the build folder and remove it afterwards."""
    parent = BUILD / "perf"
    parent.mkdir(parents=True, exist_ok=True)
    with _scratch(parent) as folder:
        yield folder


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"forebay-perf-{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
