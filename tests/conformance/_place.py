"""Storages that the suites are run on, and the folders behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem

from forebay.ufs import ObjectInfo, UnderStorage
from forebay.ufs.payload import BytesPayload
from forebay.ufs.writer import StorageWriter, Written
from tests._job import Job


@dataclass
class Place:
    """A storage, and the folder behind it, which the suite writes to directly."""

    storage: UnderStorage
    folder: Path
    missing_root: UnderStorage
    # Whether all of an object is sent by one call.
    is_one_call: bool = False

    def put(self, path: str, data: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # As a writer that replaces does: under another inode, in one step.
        temporary = target.with_name(".new")
        temporary.write_bytes(data)
        temporary.replace(target)

    def read(self, path: str, offset: int, length: int, version: str | None = None) -> bytes:
        with self.storage.read_range(path, offset, length, version) as body:
            buffer = bytearray(body.length)
            body.readinto(memoryview(buffer))
        return bytes(buffer)

    def names(self, path: str) -> dict[str, ObjectInfo]:
        return {info.path: info for page in self.storage.list(path) for info in page}

    @property
    def writer(self) -> StorageWriter:
        writer = self.storage.writer()
        assert writer is not None
        return writer

    def write(self, path: str, data: bytes, *, exclusive: bool = False) -> Written:
        job = Job()
        written = self.writer.put(path, BytesPayload(data), job, exclusive=exclusive)
        assert not job.is_left
        # What is noted is for those who are killed: undoing what was completed changes nothing.
        self.writer.undo(job.facts)
        assert self.read(path, 0, len(data) + 1) == data
        return written

    def exclusive_bytes_max(self, path: str) -> int:
        job = Job()
        bytes_max = self.writer.exclusive_bytes_max(path, job)
        assert not job.is_left
        return bytes_max


class MemoryPlace(Place):
    """fsspec's memory: what is put into the folder, for the suite to look at, is put there too."""

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data)
        fsspec.filesystem("memory").pipe_file(f"/root/{path}", data)


class AsyncMemory(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's memory, as a file system of its asynchronous kind."""

    protocol = "asyncmemory"
    root_marker = "/"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.memory = fsspec.filesystem("memory")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("asyncmemory://").strip("/")

    async def _info(self, path: str, **_: Any) -> Any:
        return self.memory.info(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        return self.memory.ls(path, detail)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> Any:
        return self.memory.cat_file(path, start, end)

    async def _pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self.memory.pipe_file(path, value)

    async def _rm_file(self, path: str, **_: Any) -> None:
        self.memory.rm_file(path)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self.memory.cp_file(path1, path2)
