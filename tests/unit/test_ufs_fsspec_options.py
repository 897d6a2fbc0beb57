"""What may be attached through fsspec, with which options; secrets are refused and shown nowhere."""

from __future__ import annotations

import io
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from fsspec.registry import _registry, known_implementations
from fsspec.spec import AbstractFileSystem

from forebay.errors import ConfigError
from forebay.ufs import open_storage
from forebay.ufs._fsspec_options import Target, is_known, target_of

SECRET = "hunter2-5ecret"


@pytest.fixture
def known_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a bare file system in the place of one whose library is not installed."""

    class Bare(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol: Any = ("abfs", "az", "ftp", "gcs", "gs", "hdfs", "sftp", "smb", "ssh", "webhdfs")

    def register(scheme: str) -> None:
        monkeypatch.setitem(_registry, scheme, Bare)

    return register


@pytest.mark.parametrize("scheme", ["gs", "abfs", "hdfs", "sftp", "http", "https", "memory", "webhdfs"])
def test_fsspecs_schemes_are_known(scheme: str) -> None:
    assert is_known(scheme)


def test_an_unknown_scheme_says_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown scheme 'gopher'; known are s3://, file://"):
        open_storage("gopher://host/a", {})
    with pytest.raises(ConfigError, match=r"written file:///data"):
        open_storage("/data", {})


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("zip:///a.zip", "attach that one"),
        ("simplecache://x", "attach that one"),
        ("reference://x", "attach that one"),
        ("local:///data", "file:///folder"),
        ("s3a://bucket/a", "write s3://"),
        ("forebay://d/a", "a cache itself"),
        ("data://text,a", "the data themselves"),
    ],
)
def test_what_cannot_be_an_under_storage_is_refused(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_storage(uri, {})


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"class": "no_such_library.FileSystem", "err": "Install no-such-library"}
    monkeypatch.setitem(known_implementations, "nowhere", missing)
    with pytest.raises(ConfigError, match=r"nowhere://.*not installed: Install no-such-library"):
        open_storage("nowhere://a", {})


@pytest.mark.parametrize(
    ("uri", "options", "keywords", "root"),
    [
        ("gs://bucket/pre/fix/", {"project": "p"}, {"project": "p"}, "bucket/pre/fix"),
        ("gcs://bucket", {"anonymous": True}, {"token": "anon"}, "bucket"),
        ("gs://bucket", {"anonymous": False, "project": None}, {}, "bucket"),
        ("abfs://box@account.dfs/a", {"anonymous": False}, {"anon": False}, "box@account.dfs/a"),
        ("sftp://me@host/a", {"key_filename": "~/.ssh/k"}, {"key_filename": "~/.ssh/k"}, "me@host/a"),
        ("ftp://host/a", {"tls": True}, {"tls": True}, "host/a"),
        ("hdfs://node:8020/a", {"user": "me"}, {"user": "me"}, "node:8020/a"),
    ],
)
def test_options_become_keywords(
    known_as: Callable[[str], None],
    uri: str,
    options: dict[str, Any],
    keywords: dict[str, Any],
    root: str,
) -> None:
    known_as(uri.partition("://")[0])
    target = target_of(uri, options)
    timeout = {"timeout": 30.0} if target.scheme in ("sftp", "ftp") else {}
    assert (dict(target.keywords), target.root) == (keywords | timeout, root)
    assert (target.timeout_s, target.attempts) == (30.0, 4)


def test_times_and_attempts_are_options_of_every_scheme() -> None:
    target = target_of("memory://a", {"timeout_s": 2, "attempts": 7})
    assert (target.timeout_s, target.attempts) == (2.0, 7)
    for name in ("timeout_s", "attempts"):
        for value in (0, -1, True, "3"):
            with pytest.raises(ConfigError, match=f"{name}: .* is no number of at least 1"):
                target_of("memory://a", {name: value})


@pytest.mark.parametrize(
    "uri",
    ["http:///a", "http://host/a?page=1", "http://host/a#part", "gs://bucket/a?versions", "memory://a\0b"],
)
def test_a_malformed_uri_is_refused(known_as: Callable[[str], None], uri: str) -> None:
    known_as("gs")
    with pytest.raises(ConfigError):
        target_of(uri)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"memory:// has no such option \(did you mean 'attempts'\?\)"):
        target_of("memory://a", {"attempt": 3})


Planted = tuple[str, dict[str, Any]]

PLANTED: list[Planted] = [
    ("gs://bucket/a", {"token": SECRET}),
    ("gs://bucket/a", {"token": {"private_key": SECRET}}),
    ("gs://bucket/a", {"endpoint_url": f"https://user:{SECRET}@host"}),
    ("gs://bucket/a", {"project": {"private_key": SECRET}}),
    ("abfs://box/a", {"account_key": SECRET}),
    ("abfs://box/a", {"sas_token": SECRET}),
    ("abfs://box/a", {"connection_string": f"AccountKey={SECRET}"}),
    (f"abfs://box:{SECRET}@account/a", {}),
    ("sftp://host/a", {"password": SECRET}),
    (f"sftp://user:{SECRET}@host/a", {}),
    (f"ftp://user:{SECRET}@host/a", {}),
    ("hdfs://node/a", {"extra_conf": {"hadoop.secret": SECRET}}),
    (f"webhdfs://user:{SECRET}@node/a", {}),
    (f"http://user:{SECRET}@host/a", {}),
    (f"https://{SECRET}@host/a", {}),
    (f"https://host/a?sig={SECRET}", {}),
    (f"https://host/a#{SECRET}", {}),
    ("http://host/a", {"client_kwargs": {"headers": {"Authorization": SECRET}}}),
    ("http://host/a", {"headers": SECRET}),
    ("http://host/a", {"auth": SECRET}),
    (f"memory://{SECRET}@a", {}),
    (f"gopher://user:{SECRET}@host/a", {}),
    ("memory://a", {"attempts": [SECRET]}),
]


@pytest.mark.parametrize(("uri", "options"), PLANTED)
def test_a_planted_secret_is_refused_and_shown_nowhere(
    known_as: Callable[[str], None], uri: str, options: dict[str, Any]
) -> None:
    scheme = uri.partition("://")[0]
    if scheme not in ("http", "https", "memory", "gopher"):
        known_as(scheme)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with pytest.raises(ConfigError) as raised:
            open_storage(uri, options)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown
    assert SECRET not in log.getvalue()
    assert SECRET.encode() not in pickle.dumps(raised.value)


def test_a_storage_is_not_pickled() -> None:
    """It belongs to one process; what crosses is the cache's configuration."""
    for uri in ("memory://a", "http://host/a"):
        with pytest.raises(TypeError):
            pickle.dumps(open_storage(uri, {}))


def test_a_target_keeps_what_it_was_made_of() -> None:
    assert isinstance(target_of("memory://a"), Target)
    with pytest.raises(AttributeError):
        target_of("memory://a").root = "b"  # type: ignore[misc]  # frozen
