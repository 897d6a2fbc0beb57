"""Where the integration tests read from: folders of known files, and S3 servers, with or without a proxy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server

OpenCache = Callable[..., Cache]

# For how long one who makes no progress is waited for where a test counts what is asked of a storage.
PATIENCE_S = 60.0


def counters(cache: Cache) -> dict[str, int]:
    """Return the counters of the cache's store."""
    return dict(cache.status()["counters"])


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their paths below a folder, with the folders on the way."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def log_in(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be known to the server for the length of a test."""
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)


def proxy_of(server: S3Server, listen_host: str = "127.0.0.1") -> Proxy:
    """Return a proxy in front of the server; it is to be entered."""
    host, port = server.address.split(":")
    return Proxy((host, int(port)), listen=(listen_host, 0))
