"""Shared by all test folders: opt-in folders, hypothesis settings, a memory folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from forebay.ufs import _s3_endpoint

ROOT = Path(__file__).resolve().parents[1]

# Examples touch disks that other tests share, so none is judged by its time; a failure prints how to repeat
# it.
settings.register_profile("forebay", deadline=None, print_blob=True)
settings.load_profile("forebay")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress", action="store_true", help="run tests/stress too, which takes long")
    parser.addoption("--spark", action="store_true", help="run tests/spark too, which needs Spark")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the stress tests, and those with Spark, out unless they are asked for."""
    for name in ("stress", "spark"):
        if collection_path == ROOT / "tests" / name and not config.getoption(f"--{name}"):
            return True
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure if disk tiers admit nothing: they leave a tenth of the file system free.

    Not to be read from the share that is used, which leaves out what is reserved for others.
    """
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path", tempfile.gettempdir())
    if report.failed and (disk := shutil.disk_usage(folder)).free < disk.total / 10:
        words = f"{folder}: {disk.free} of {disk.total} bytes are available, so disk tiers admit nothing"
        report.sections.append(("Less than a tenth of the file system is free", words))
    return report


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout under test."""
    return ROOT


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A fresh folder on tmpfs, for MEM tiers; removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="forebay-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def servers_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process learnt of servers: a test's may have the port of one of an earlier test."""
    monkeypatch.setattr(_s3_endpoint, "_endpoints", {})


@pytest.fixture(scope="session", autouse=True)
def no_second_copy() -> Iterator[None]:
    """Hold the whole run to one copy of each module: no folder of ours may get in under its own name."""
    yield
    for name in ("engine", "peer", "fuse"):
        found = getattr(sys.modules.get(name), "__file__", None)
        assert found is None or not Path(found).is_relative_to(ROOT), f"{name} was imported from {found}"
