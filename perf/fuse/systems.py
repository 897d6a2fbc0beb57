"""The systems that are mounted over one S3 server, each with a cache of its own on the same tmpfs.

All are told that the objects never change, in so far as they can be told: names and attributes stay valid in
the kernel for the whole run, and every mount is read-only. That is what forebay does for immutable datasets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import forebay
from forebay.testing.s3 import find_rclone
from perf.fuse import bare_mount
from perf.fuse.mounts import Mount, mounted, raise_read_ahead
from perf.fuse.redis import redis_server
from perf.fuse.stage import Stage
from perf.harness import Facts
from perf.places import BUILD
from perf.system.bucket import BUCKET, DATASET

JUICEFS = BUILD / "peers" / "bin" / "juicefs"
FOREBAY = Path(sys.executable).with_name("forebay")
JUICEFS_BUCKET = "juicefs"
VALID_S = 86_400
COPIES_AT_A_TIME = 8
# mdtest of JuiceFS makes its files in a directory of this name.
MADE_FOLDER = "test-dir.0-0/mdtest_tree.0"


System = Callable[[Stage], AbstractContextManager[Mount]]


@contextmanager
def all_mounted(stage: Stage, systems: Mapping[str, System]) -> Iterator[dict[str, Mount]]:
    """Mount every system."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(system(stage)) for name, system in systems.items()}


@contextmanager
def forebay_mount(stage: Stage) -> Iterator[Mount]:
    """Mount the bucket, whose objects forebay knows, by its own command."""
    place = stage.place("forebay")
    with forebay_cache(place, stage) as cache:
        cache.load(DATASET, metadata_only=True).wait()
    command = [str(FOREBAY), "mount", DATASET, str(place / "mount"), "--cache-dir", str(place / "cache")]
    with mounted(command, place / "mount") as mount:
        yield mount


@contextmanager
def forebay_cache(place: Path, stage: Stage) -> Iterator[forebay.Cache]:
    """Give a cache with the bucket attached."""
    tiers = [forebay.Tier(str(place / "tier"), stage.load["quota_bytes"], "MEM")]
    with forebay.open(place / "cache", tiers=tiers) as cache:
        cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=stage.endpoint_url, max_age=None)
        yield cache


@contextmanager
def rclone_mount(stage: Stage) -> Iterator[Mount]:
    """Mount the bucket by rclone, with whole files in its cache."""
    place = stage.place("rclone")
    remote = f':s3,provider=Rclone,env_auth=true,endpoint="{stage.endpoint_url}":{BUCKET}'
    valid = f"{VALID_S}s"
    command = [find_rclone(), "mount", remote, str(place / "mount"), "--read-only"]
    command += ["--vfs-cache-mode", "full", "--cache-dir", str(place / "cache"), "--vfs-cache-max-age", valid]
    command += ["--dir-cache-time", valid, "--attr-timeout", valid, "--poll-interval", "0"]
    command += ["--use-server-modtime"]  # without it every stat is a request
    with mounted(command, place / "mount", {"RCLONE_CONFIG": ""}) as mount:
        yield mount


@contextmanager
def s3fs_mount(stage: Stage) -> Iterator[Mount]:
    """Mount the bucket by s3fs, with files in its cache."""
    place = stage.place("s3fs")
    options = [
        "ro",
        f"url={stage.endpoint_url}",
        "use_path_request_style",
        f"use_cache={place / 'cache'}",
        f"stat_cache_expire={VALID_S}",
        f"max_stat_cache_size={2 * stage.load['listed_count']}",
        f"attr_timeout={VALID_S}",
        f"entry_timeout={VALID_S}",
        "kernel_cache",
    ]
    command = ["s3fs", BUCKET, str(place / "mount"), "-f", "-o", ",".join(options)]
    keys = {"AWSACCESSKEYID": stage.server.access_key, "AWSSECRETACCESSKEY": stage.server.secret_key}
    with mounted(command, place / "mount", keys) as mount:
        yield mount


@contextmanager
def juicefs_mount(stage: Stage) -> Iterator[Mount]:
    """Mount a JuiceFS volume with copies of the objects; its blocks lie in a bucket beside theirs."""
    with _juicefs_volume(stage) as (place, meta):
        with _juicefs(place, meta) as mount:
            _copy_tree(stage.objects, mount.root)
        shutil.rmtree(place / "cache", ignore_errors=True)
        with _juicefs(place, meta, "--read-only") as mount:
            yield mount


@contextmanager
def juicefs_listed(stage: Stage) -> Iterator[Mount]:
    """Mount a JuiceFS volume with one directory of empty files, made by its own benchmark of metadata."""
    count = stage.load["listed_count"]
    with _juicefs_volume(stage) as (place, meta):
        command = [str(JUICEFS), "mdtest", meta, "/many", "--threads", "4", "--dirs", "0", "--depth", "0"]
        subprocess.run([*command, "--files", str(count // 4)], check=True, capture_output=True)
        with _juicefs(place, meta, "--read-only") as mount:
            yield Mount(mount.root / "many" / MADE_FOLDER, mount.pid)


@contextmanager
def bare_pyfuse3_mount(stage: Stage) -> Iterator[Mount]:
    """Mount the objects where they lie, by a program that knows nothing but a table."""
    place = stage.place("bare")
    command = [sys.executable, bare_mount.__file__, str(stage.objects), str(place / "mount")]
    with mounted(command, place / "mount") as mount:
        raise_read_ahead(mount.root, stage.load["read_ahead_kb"])
        yield mount


OURS, BARE = "forebay", "bare pyfuse3"
PEERS: dict[str, System] = {"rclone": rclone_mount, "s3fs": s3fs_mount, "JuiceFS": juicefs_mount}
SYSTEMS: dict[str, System] = {OURS: forebay_mount, BARE: bare_pyfuse3_mount, **PEERS}


def peer_versions() -> Facts:
    """Say what was measured against, in the programs' own words."""
    commands = {
        "rclone": [find_rclone(), "version"],
        "s3fs": ["s3fs", "--version"],
        "JuiceFS": [str(JUICEFS), "version"],
    }
    return {
        name: subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n")[0]
        for name, command in commands.items()
    }


@contextmanager
def _juicefs_volume(stage: Stage) -> Iterator[tuple[Path, str]]:
    """Make an empty volume; gives its folder and the URL of its metadata."""
    place = stage.place("juicefs")
    (stage.folder / "s3" / JUICEFS_BUCKET).mkdir(parents=True)
    with redis_server(place / "redis") as meta:
        bucket = f"{stage.endpoint_url}/{JUICEFS_BUCKET}"
        command = [str(JUICEFS), "format", "--storage", "s3", "--bucket", bucket, meta, DATASET]
        keys = {"ACCESS_KEY": stage.server.access_key, "SECRET_KEY": stage.server.secret_key}
        subprocess.run(command, env={**os.environ, **keys}, check=True, capture_output=True)
        yield place, meta


@contextmanager
def _juicefs(place: Path, meta: str, *options: str) -> Iterator[Mount]:
    valid = str(VALID_S)
    command = [
        str(JUICEFS),
        "mount",
        meta,
        str(place / "mount"),
        "--cache-dir",
        str(place / "cache"),
        *options,
    ]
    command += [
        "--attr-cache",
        valid,
        "--entry-cache",
        valid,
        "--dir-entry-cache",
        valid,
        "--open-cache",
        valid,
    ]
    command += ["--no-usage-report", "--no-syslog", "--backup-meta", "0"]
    with mounted(command, place / "mount") as mount:
        yield mount


def _copy_tree(source: Path, target: Path) -> None:
    files = [path for path in source.rglob("*") if path.is_file()]
    for folder in {path.parent for path in files}:
        (target / folder.relative_to(source)).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(COPIES_AT_A_TIME) as pool:
        for _ in pool.map(lambda path: shutil.copyfile(path, target / path.relative_to(source)), files):
            pass
