"""Settings: where they come from, which wins, and what is said when they are wrong."""

from __future__ import annotations

import inspect
import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import forebay
from forebay.cache import Cache
from forebay.cache.pool import FetchLimits
from forebay.config import GIB, KIB, MIB, Tier
from forebay.errors import ConfigError
from forebay.peer.security.options import SecurityOptions
from forebay.settings import SETTINGS, Settings, load_settings
from forebay.store.options import StoreOptions


def write(folder: Path, text: str) -> str:
    file = folder / "forebay.toml"
    file.write_text(text)
    return str(file)


def test_nothing_is_set_by_default() -> None:
    assert load_settings(environ={}) == Settings()


def test_file_and_environment(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'cache_dir = "/from/file"\nchecksum = "read"\nblock_bytes = "1MiB"\nmax_read_bytes = 1048576\n'
        'stall_timeout_s = 2\nrows = 64\nshared_group = "ml"\nread_only = true\nmaintainer = false\n'
        '[[tiers]]\npath = "/nvme/a"\nquota = "1GiB"\nhigh = 0.8\nlow = 0.7\n',
    )
    from_file = load_settings(file, environ={})
    assert from_file.cache_dir == "/from/file"
    assert from_file.tiers == (Tier("/nvme/a", GIB, high=0.8, low=0.7),)
    assert from_file.options == {
        "checksum": "read",
        "block_bytes": MIB,
        "max_read_bytes": MIB,
        "stall_timeout_s": 2.0,
        "rows": 64,
        "shared_group": "ml",
        "read_only": True,
        "maintainer": False,
    }
    environ = {
        "FOREBAY_CONFIG": file,
        "FOREBAY_CACHE_DIR": "/from/env",
        "FOREBAY_TIERS": "/nvme/b:2GiB, /dev/shm/b:1GiB:MEM",
        "FOREBAY_BLOCK_BYTES": "64KiB",
        "FOREBAY_STALL_TIMEOUT_S": "0.5",
        "FOREBAY_ROWS": "128",
        "FOREBAY_SHARED_GROUP": "1001",
        "FOREBAY_READ_ONLY": "no",
        "FOREBAY_MAINTAINER": "On",
        "FOREBAY_CHECKSUM": "",
        "FOREBAY_SERVICE_HOST": "as Kubernetes sets it for a service of that name",
    }
    from_both = load_settings(environ=environ)
    assert from_both.cache_dir == "/from/env"
    assert from_both.tiers == (Tier("/dev/shm/b", GIB, "MEM"), Tier("/nvme/b", 2 * GIB))
    assert from_both.options == {
        "checksum": "read",
        "block_bytes": 64 * KIB,
        "max_read_bytes": MIB,
        "stall_timeout_s": 0.5,
        "rows": 128,
        "shared_group": 1001,
        "read_only": False,
        "maintainer": True,
    }
    given = load_settings(environ=environ, given={"rows": "256", "checksum": "none"})
    assert (given.options["rows"], given.options["checksum"]) == (256, "none")


def test_a_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, 'cache_dir = "~/cache"\n')
    assert load_settings("~/forebay.toml", environ={}).cache_dir == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('cachedir = "x"', r"unknown key 'cachedir' \(did you mean 'cache_dir'\?\)"),
        ("[cache]\nx = 1", "unknown key 'cache'"),
        ("cache_dir = 3", "cache_dir: expected text, got a number"),
        ('cache_dir = ""', "cache_dir: expected text"),
        ('cache_dir = "s3://bucket"', "cache_dir: expected a local directory, got a URL"),
        ('checksum = "reed"', r"checksum: 'reed' is unknown \(did you mean 'read'\?\)"),
        ("checksum = true", "checksum: expected text, got true or false"),
        ('block_bytes = "4 Gi"', "block_bytes: '4 Gi' is no size"),
        ("block_bytes = 1.5", "block_bytes: expected a size"),
        ("block_bytes = -1", "block_bytes: -1 is negative"),
        ('stall_timeout_s = "soon"', "stall_timeout_s: expected seconds, got other text"),
        ("stall_timeout_s = true", "stall_timeout_s: expected seconds, got true or false"),
        ("rows = 1.5", "rows: expected a whole number, got a number"),
        ("rows = [1]", "rows: expected a whole number, got a list"),
        ('read_only = "maybe"', "read_only: expected true or false"),
        ("read_only = 1", "read_only: expected true or false, got a number"),
        ("shared_group = {}", "shared_group: expected text, got a table"),
        ("tiers = 5", "expected tables"),
        ("tiers = [1]", "expected tables"),
        ("tiers = []", "no tiers"),
        ('[[tiers]]\npath = "/a"', "quota is missing"),
        ('[[tiers]]\npath = "/a"\nquota = 5\nmedum = "SSD"', "did you mean 'medium'"),
        ('[[tiers]]\npath = "/a"\nquota = [5]', "no size"),
        ('[[tiers]]\npath = "/a"\nquota = 5\nlow = 0.9\nhigh = 0.5', "low watermark 0.9 is above high"),
        (
            '[[tiers]]\npath = "/a"\nquota = 5\n[[tiers]]\npath = "/a/b"\nquota = 5',
            "tiers /a and /a/b overlap",
        ),
        ("cache_dir =", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_settings(file, environ={})
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('secret_access_key = "hunter2"', "secret_access_key"),
        ('aws-session-token = "hunter2"', "aws-session-token"),
        ('[s3]\nPassword = "hunter2"', r"s3\.Password"),
        ('[s3]\nsecret = { value = "hunter2" }', r"s3\.secret"),
        ('cache_dir = "AKIAIOSFODNN7HUNTER2"', "cache_dir"),
        ('cache_dir = "https://me:hunter2@host/x"', "cache_dir"),
        ('x = ["-----BEGIN hunter2"]', "x"),
        ('[[tiers]]\npath = "/a"\nquota = "1GiB"\napi_key = "hunter2"', r"tiers\.api_key"),
    ],
)
def test_a_secret_is_refused_and_not_shown(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f": {key}: a secret; take it out") as caught:
        load_settings(write(tmp_path, text), environ={})
    shown = f"{caught.value!r} {caught.value.__cause__!r}".lower()
    assert "hunter2" not in shown


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load_settings(str(tmp_path / "absent.toml"), environ={})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(str(tmp_path), environ={})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigError, match=r"binary\.toml: not valid TOML"):
        load_settings(environ={"FOREBAY_CONFIG": str(tmp_path / "binary.toml")})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FOREBAY_TIERS", "/nvme/a"),
        ("FOREBAY_TIERS", "/a:1GiB,/a/b:1GiB"),
        ("FOREBAY_ROWS", "many"),
        ("FOREBAY_READ_ONLY", "maybe"),
        ("FOREBAY_STALL_TIMEOUT_S", "-1"),
        ("FOREBAY_CHECKSUM", "Read"),
        ("FOREBAY_BLOCK_BYTES", "4 Gi"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        load_settings(environ={variable: text})


def test_a_bad_given_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'row' \(did you mean 'rows'"):
        load_settings(environ={}, given={"row": "5"})
    with pytest.raises(ConfigError, match=r"^rows: expected a whole number"):
        load_settings(environ={}, given={"rows": "x"})


def test_a_cache_is_opened_with_the_settings(
    tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        tmp_path,
        f'cache_dir = "{tmp_path / "cache"}"\nmax_held_bytes = "40MiB"\nin_flight_max = 3\n'
        f'[[tiers]]\npath = "{memory_path}"\nquota = "64MiB"\nmedium = "MEM"\n',
    )
    monkeypatch.setenv("FOREBAY_CONFIG", file)
    monkeypatch.setenv("FOREBAY_IN_FLIGHT_MAX", "5")
    with forebay.open(max_held_bytes="50MiB") as cache:
        status = cache.status()
    assert cache.path == str(tmp_path / "cache")
    assert (status["fetch"]["in_flight_max"], status["max_held_bytes"]) == (5, 50 * MIB)


def test_secrets_are_named_by_their_files(tmp_path: Path) -> None:
    text = 'token_file = "~/token"\ntls_key_file = "/k"\ntls_mutual = true\n'
    found = load_settings(write(tmp_path, text), environ={"FOREBAY_TOKEN_KEYS_FILE": "/keys"})
    assert found.options == {
        "token_file": os.path.expanduser("~/token"),
        "token_keys_file": "/keys",
        "tls_key_file": "/k",
        "tls_mutual": True,
    }
    with pytest.raises(ConfigError, match="FOREBAY_TOKEN_FILE: expected the name of a file") as caught:
        load_settings(environ={"FOREBAY_TOKEN_FILE": "fb1.PLANTED.PLANTED"})
    assert "PLANTED" not in str(caught.value)


def test_every_option_of_a_cache_is_a_setting() -> None:
    own = {field.name for field in fields(SecurityOptions)} | {
        name
        for name, parameter in inspect.signature(Cache).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    options = own | {field.name for kind in (FetchLimits, StoreOptions) for field in fields(kind)}
    of_group = {"group", "peers", "role", "replica_rate_limit"}
    # Objects cannot be written down, and reshaping is done once, by intention.
    expected = options - {"remote", "clock", "schemes", "reshape"} | {"cache_dir", "tiers"} | of_group
    assert {setting.key for setting in SETTINGS} == expected


def test_the_example_has_every_key_and_is_valid(tmp_path: Path, repository: Path) -> None:
    example = (repository / "deploy/forebay.toml.example").read_text()
    with_all = re.sub(r"^# (?=[a-z_]+ = |\[\[tiers\]\])", "", example, flags=re.MULTILINE)
    assert set(tomllib.loads(with_all)) == {setting.key for setting in SETTINGS}
    settings = load_settings(write(tmp_path, with_all), environ={})
    assert settings.tiers is not None
    assert [tier.medium for tier in settings.tiers] == ["MEM", "SSD"]
    assert load_settings(write(tmp_path, example), environ={}).options == {}
