"""Hadoop's own client and Spark over a gateway that runs as users run it; `make test-spark` installs both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier

TIMEOUT_S = 300
ROWS = 20_000
DATA = os.urandom(5 * MIB)

# Run by the interpreter that has pyspark: makes a table from nothing, and reads another.
JOB = """
import sys
from pyspark.sql import SparkSession, functions

root, rows = sys.argv[1], int(sys.argv[2])
session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
numbers = session.range(rows).withColumn("half", functions.col("id") / 2).repartition(4)
numbers.write.parquet(f"{root}/w/table")
table = session.read.parquet(f"{root}/fixed/table")
print("sums", table.count(), table.agg(functions.sum("id")).first()[0], table.where("half >= 5000").count())
session.read.parquet(f"{root}/w/table").write.mode("overwrite").parquet(f"{root}/w/again")
print("again", session.read.parquet(f"{root}/w/again").select("half").distinct().count())
"""


@dataclass(frozen=True)
class Site:
    """A gateway, what it serves, and the Python that has pyspark."""

    root: str
    source: Path
    python: str
    folder: Path

    def hadoop(self, *arguments: str, code: int = 0) -> str:
        """Run a command of Hadoop's file system shell; return what it prints."""
        jars = next(Path(self.python).parents[1].glob("lib/python3*/site-packages/pyspark/jars"))
        configuration = self.folder / "configuration"
        configuration.mkdir(exist_ok=True)
        (configuration / "core-site.xml").write_text("<configuration/>")
        done = subprocess.run(
            [
                "java",
                "-cp",
                f"{configuration}:{jars}/*",
                "org.apache.hadoop.fs.FsShell",
                "-D",
                f"fs.defaultFS={self.root}",
                *arguments,
            ],
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A folder that may be written as ``w``, and read as ``fixed``, behind a gateway."""
    python = os.environ.get("FOREBAY_SPARK_PYTHON")
    assert python, "FOREBAY_SPARK_PYTHON: run `make test-spark`, which installs Spark and says where"
    assert shutil.which("java"), "there is no java; `make test-spark` installs one"
    folder = tmp_path_factory.mktemp("spark")
    source = folder / "source"
    source.mkdir()
    tier = Tier(str(folder / "tier"), 256 * MIB, "SSD")
    with Cache(folder / "cache", [tier], block_bytes=256 * KIB) as cache:
        cache.attach("w", source.as_uri(), writable=True, max_age=0)
        cache.attach("fixed", source.as_uri(), max_age=0)
    command = [sys.executable, "-m", "forebay", "serve", "--webhdfs", "127.0.0.1:0", "--json"]
    environ = os.environ | {"FOREBAY_CACHE_DIR": str(folder / "cache"), "FOREBAY_BLOCK_BYTES": str(256 * KIB)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["webhdfs"]
            yield Site(f"webhdfs://{address}", source, python, folder)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0


def test_hadoops_own_client(site: Site, tmp_path: Path) -> None:
    up, down = tmp_path / "up", tmp_path / "down"
    up.write_bytes(DATA)
    site.hadoop("-mkdir", "-p", "/w/java/deep")
    site.hadoop("-put", str(up), "/w/java/file")
    assert (site.source / "java/file").read_bytes() == DATA
    listed = site.hadoop("-ls", "/w/java").splitlines()
    assert [line.split()[-1] for line in listed] == ["items", "/w/java/deep", "/w/java/file"]
    assert listed[2].split()[4] == str(len(DATA))
    site.hadoop("-get", "/fixed/java/file", str(down))
    assert down.read_bytes() == DATA
    site.hadoop("-mv", "/w/java/file", "/w/java/deep/moved")
    site.hadoop("-appendToFile", str(up), "/w/java/deep/moved")
    assert (site.source / "java/deep/moved").read_bytes() == DATA * 2
    assert site.hadoop("-stat", "%b %F", "/w/java/deep/moved").split(maxsplit=1)[0] == str(2 * len(DATA))
    assert "MD5-of-0MD5-of-512CRC32C" in site.hadoop("-checksum", "/w/java/deep/moved")
    assert site.hadoop("-count", "/w/java").split()[:3] == ["2", "1", str(2 * len(DATA))]
    site.hadoop("-touchz", "/w/java/empty")
    assert site.hadoop("-cat", "/w/java/empty") == ""
    site.hadoop("-setrep", "2", "/w/java/empty")
    site.hadoop("-test", "-e", "/w/java/none", code=1)
    site.hadoop("-put", str(up), "/w/java/empty", code=1)
    site.hadoop("-rm", "-r", "/w/java")
    assert not (site.source / "java").exists()


def test_spark_writes_and_reads_parquet(site: Site) -> None:
    said = run(site.python, JOB, site.root, str(ROWS))
    assert f"sums {ROWS} {ROWS * (ROWS - 1) // 2} {ROWS - 10_000}" in said
    assert f"again {ROWS}" in said
    assert len(list((site.source / "table").glob("*.parquet"))) == 4
    # What Spark puts aside while it writes is gone.
    assert not list(site.source.rglob("_temporary"))


def run(python: str, program: str, *arguments: str) -> str:
    """Run a program of Spark; return what it prints."""
    done = subprocess.run(
        [python, "-c", program, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    return done.stdout
