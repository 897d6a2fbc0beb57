"""Fixtures of the fault tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forebay.config import Medium
from tests.faults._damage import CacheFolder, nothing_left, one_tier
from tests.faults._meta import prepare

MakeFolder = Callable[..., CacheFolder]


@pytest.fixture
def make_folder(tmp_path: Path, memory_path: Path) -> Iterator[MakeFolder]:
    """Make cache folders of one tier, MEM on tmpfs; when the test ends nothing of them may be left open."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def make(medium: Medium, quota: int | str = "16MiB") -> CacheFolder:
            number = next(numbers)
            base = memory_path if medium == "MEM" else tmp_path
            folder = one_tier(tmp_path / f"cache{number}", base / f"tier{number}", medium, quota)
            stack.enter_context(nothing_left(folder))
            return folder

        yield make


@pytest.fixture(params=["disk", "tmpfs"])
def meta_folder(request: pytest.FixtureRequest, tmp_path: Path, memory_path: Path) -> Path:
    """A folder with an LMDB file of a few commits."""
    folder = tmp_path if request.param == "disk" else memory_path
    prepare(folder)
    return folder
