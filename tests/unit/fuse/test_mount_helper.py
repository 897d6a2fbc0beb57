"""What mount(8) gives its helper, as a command line of forebay."""

from __future__ import annotations

import pytest

from forebay.cli import mount_helper
from forebay.cli.mount_helper import arguments


def test_options_of_the_cache_are_told_from_those_of_the_mount() -> None:
    words = ["rw", "cache_dir=/c", "config=/etc/forebay.toml", "supervise", "allow_other", "uid=7", "_netdev"]
    assert arguments("d", "/mnt", words) == [
        *("--cache-dir", "/c", "--config", "/etc/forebay.toml"),
        *("mount", "--background", "--supervise", "-o", "rw,allow_other,uid=7,_netdev", "--", "d", "/mnt"),
    ]


def test_sloppy_leaves_out_what_is_unknown() -> None:
    assert "-o ro,nofail --" in " ".join(arguments("d", "/mnt", ["ro", "huge", "nofail"], sloppy=True))


@pytest.mark.parametrize(
    ("given", "ours", "expected"),
    [
        (["d", "/mnt", "-o", "rw"], 0, 0),
        (["d", "/mnt", "-o", "rw"], 2, 1),
        (["d", "/mnt", "-o", "rw"], 1, 32),
        (["d"], 0, 1),
        (["d", "/mnt", "-f", "-n", "-v", "-t", "forebay", "-o", "ro"], 1, 0),
    ],
)
def test_exit_codes_are_those_of_mount(
    given: list[str], ours: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["mount.forebay", *given])
    monkeypatch.setattr(mount_helper, "run", lambda command: ours)
    with pytest.raises(SystemExit) as ended:
        mount_helper.main()
    assert ended.value.code == expected
