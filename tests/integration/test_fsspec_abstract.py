"""fsspec's own tests of a file system, over a local folder and over an S3 server.

rclone's server will not do: it keeps directories that nothing lies in, where S3 has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from forebay.api.fsspec import ForebayFileSystem
from tests._s3 import BUCKET, give_keys
from tests._s3_writes import WritableS3


class _Fixtures(AbstractFixtures):
    """The datasets ``files`` and ``objects``, both writable, in one cache for all tests of the module."""

    @pytest.fixture(scope="module", params=["files", "objects"])
    @classmethod
    def fs_root(cls, request: pytest.FixtureRequest, systems: ForebayFileSystem) -> tuple[Any, str]:
        return systems, request.param

    @pytest.fixture
    def fs(self, fs_root: tuple[Any, str]) -> Any:
        return fs_root[0]

    @pytest.fixture
    def fs_path(self, fs_root: tuple[Any, str]) -> str:
        return fs_root[1]

    @pytest.fixture
    def supports_empty_directories(self, fs_root: tuple[Any, str]) -> bool:
        return fs_root[1] == "files"


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayFileSystem]:
    folder = tmp_path_factory.mktemp("fsspec")
    (folder / "files").mkdir()
    with WritableS3() as server, pytest.MonkeyPatch.context() as patch:
        give_keys(patch)
        fs = fsspec.filesystem("forebay", cache_dir=str(folder / "cache"), tiers=f"{folder}/tier:64MiB:SSD")
        fs.cache.attach("files", f"file://{folder}/files", writable=True)
        fs.cache.attach("objects", f"s3://{BUCKET}/objects", endpoint_url=server.url, writable=True)
        yield fs
        fs.clear_instance_cache()
        fs.cache.close()


class TestCopy(_Fixtures, AbstractCopyTests):
    pass


class TestGet(_Fixtures, AbstractGetTests):
    pass


class TestPut(_Fixtures, AbstractPutTests):
    pass


class TestOpen(_Fixtures, AbstractOpenTests):
    pass


class TestPipe(_Fixtures, AbstractPipeTests):
    pass
