"""fsspec_cat: `cat` of 1,000 cached files by `forebay://` against fsspec's filecache over s3fs.

Both have read all of a local S3 server's objects before, and keep them on tmpfs; both give the same dict of
bytes. The rival has an interpreter of its own, see filecache_rival.py. Beside them, without a bar, copies of
the same bytes from this process's memory into new objects, one by one: what is faster than those gets its
memory in another way.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from forebay.api.fsspec import ForebayFileSystem
from perf import workload
from perf.harness import Case, Contender, Outcome, Samples, compare, interleave
from perf.places import BUILD, memory_folder
from perf.system import bucket

PYTHON = BUILD / "fsspec-peers" / "bin" / "python"
RIVAL = Path(__file__).with_name("filecache_rival.py")
ROOM_BYTES = 1 << 30
KIB = 1 << 10


def run(quick: bool) -> Outcome:
    """Read all files again and again, by both."""
    if not PYTHON.exists():
        raise FileNotFoundError(f"{PYTHON}: not there; `make bench` makes it")
    load = workload.load("fsspec", quick)
    samples: Samples = {}
    bars = []
    for file_bytes in load["file_bytes"]:
        size = f"{file_bytes / KIB:.0f} KiB"
        found = _measure({**load, "file_bytes": file_bytes}, size)
        samples |= found
        ours, single, bare, theirs = found
        bars += [
            compare(
                f"fsspec `cat` of 1,000 cached files of {size} / filecache over s3fs",
                found,
                ours,
                theirs,
                5.0,
            ),
            compare(
                f"fsspec `cat_file`, one by one, {size} / filecache over s3fs", found, single, theirs, None
            ),
            compare(f"fsspec `cat`, {size} / bare copies into new bytes", found, ours, bare, None),
            compare(
                f"fsspec `cat_file`, one by one, {size} / bare copies into new bytes",
                found,
                single,
                bare,
                None,
            ),
        ]
    return Outcome("files/s", samples, bars, load)


def _measure(load: dict[str, Any], size: str) -> Samples:
    """Read files of one size by both, again and again."""
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder(ROOM_BYTES))
        server = stack.enter_context(bucket.served(folder / "buckets"))
        keys = bucket.write_objects(folder / "buckets", load["file_count"], load["file_bytes"], load["seed"])
        data = b"".join((folder / "buckets" / bucket.BUCKET / key).read_bytes() for key in keys)
        digest = hashlib.sha256(data).hexdigest()
        parts = [
            memoryview(data)[at : at + load["file_bytes"]] for at in range(0, len(data), load["file_bytes"])
        ]
        theirs = stack.enter_context(_rival(server.endpoint_url, folder / "filecache", keys, digest))
        fs, paths = stack.enter_context(_ours(server.endpoint_url, folder, keys, load, digest))
        contenders = [
            Contender(f"forebay, cat of a list, {size}", partial(_cat, fs, paths, load)),
            Contender(f"forebay, cat_file of each, {size}", partial(_cat_each, fs, paths, load)),
            Contender(f"bare copies into new bytes, {size}", partial(_copy_each, parts, paths, load)),
            Contender(f"filecache over s3fs, cat of a list, {size}", partial(_ask, theirs, load)),
        ]
        return interleave(contenders, load["rounds"])


CASE = Case("fsspec_cat", "cat of cached files by fsspec", "one copy of the bytes", run)


@contextmanager
def _ours(
    endpoint_url: str, folder: Path, keys: list[str], load: dict[str, Any], digest: str
) -> Iterator[tuple[ForebayFileSystem, list[str]]]:
    fs = ForebayFileSystem(cache_dir=str(folder / "cache"), tiers=f"{folder}/tier:{load['quota_bytes']}:MEM")
    with fs.cache as cache:
        cache.attach(bucket.DATASET, f"s3://{bucket.BUCKET}", endpoint_url=endpoint_url, max_age=None)
        paths = [f"{bucket.DATASET}/{key}" for key in keys]
        found = fs.cat(paths)
        if hashlib.sha256(b"".join(found[path] for path in paths)).hexdigest() != digest:
            raise RuntimeError("forebay returned other bytes than the bucket holds")
        if cache.usage(bucket.DATASET).cached_bytes != load["file_count"] * load["file_bytes"]:
            raise RuntimeError("not all files are cached")
        yield fs, paths


@contextmanager
def _rival(endpoint_url: str, folder: Path, keys: list[str], digest: str) -> Iterator[subprocess.Popen[str]]:
    """Start the rival, which reads all once."""
    paths = [f"{bucket.BUCKET}/{key}" for key in keys]
    order = {"endpoint_url": endpoint_url, "folder": str(folder), "paths": paths}
    with subprocess.Popen(
        [PYTHON, RIVAL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if _say(process, json.dumps(order)) != digest:
            raise RuntimeError("filecache returned other bytes than the bucket holds")
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _say(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _ask(process: subprocess.Popen[str], load: dict[str, Any]) -> float:
    seconds = float(_say(process, str(load["passes"])))
    return float(load["passes"] * load["file_count"] / seconds)


def _cat(fs: ForebayFileSystem, paths: list[str], load: dict[str, Any]) -> float:
    started = time.perf_counter()
    for _ in range(load["passes"]):
        fs.cat(paths)
    return float(load["passes"] * len(paths) / (time.perf_counter() - started))


def _cat_each(fs: ForebayFileSystem, paths: list[str], load: dict[str, Any]) -> float:
    started = time.perf_counter()
    for _ in range(load["passes"]):
        {path: fs.cat_file(path) for path in paths}
    return float(load["passes"] * len(paths) / (time.perf_counter() - started))


def _copy_each(parts: list[memoryview], paths: list[str], load: dict[str, Any]) -> float:
    started = time.perf_counter()
    for _ in range(load["passes"]):
        {path: bytes(part) for path, part in zip(paths, parts, strict=True)}
    return float(load["passes"] * len(paths) / (time.perf_counter() - started))
