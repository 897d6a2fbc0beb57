"""The systems that are mounted over one S3 server, each with a cache of its own on the same tmpfs.

All are told that the objects never change, in so far as they can be told: names and attributes stay valid in
the kernel for the whole run, and every mount is read-only. That is what forebay does for immutable datasets.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import forebay
from forebay.testing.s3 import find_rclone
from perf.fuse import bare_mount, juicefs
from perf.fuse.mounts import Mount, mounted, raise_read_ahead
from perf.fuse.stage import VALID_S, Stage
from perf.harness import Facts
from perf.system.bucket import BUCKET, DATASET

FOREBAY = Path(sys.executable).with_name("forebay")


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
def bare_pyfuse3_mount(stage: Stage) -> Iterator[Mount]:
    """Mount the objects where they lie, by a program that knows nothing but a table."""
    place = stage.place("bare")
    command = [sys.executable, bare_mount.__file__, str(stage.objects), str(place / "mount")]
    with mounted(command, place / "mount") as mount:
        raise_read_ahead(mount.root, stage.load["read_ahead_kb"])
        yield mount


OURS, BARE = "forebay", "bare pyfuse3"
OLD_JUICEFS, NEW_JUICEFS = juicefs.V0_14.name, juicefs.V1_4.name
# The bars are set against these; the new JuiceFS is measured as well, and its ratios have no target.
PEERS: dict[str, System] = {
    "rclone": rclone_mount,
    "s3fs": s3fs_mount,
    OLD_JUICEFS: partial(juicefs.copied, juicefs.V0_14),
}
SYSTEMS: dict[str, System] = {
    OURS: forebay_mount,
    BARE: bare_pyfuse3_mount,
    **PEERS,
    NEW_JUICEFS: partial(juicefs.copied, juicefs.V1_4),
}


def peer_versions(measured: Iterable[str]) -> Facts:
    """Say what was measured against, in the programs' own words."""
    commands = {
        "rclone": [find_rclone(), "version"],
        "s3fs": ["s3fs", "--version"],
        **{version.name: [str(version.program()), "--version"] for version in juicefs.VERSIONS},
    }
    return {name: _first_line(commands[name]) for name in measured if name in commands}


def _first_line(command: list[str]) -> str:
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.partition("\n")[0]
