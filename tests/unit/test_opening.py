"""Opening with a group: who is asked to make it, of what, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import forebay
from forebay import opening
from forebay.cli.session import Session
from forebay.config import MIB, Tier
from forebay.errors import ConfigError
from forebay.peer.security.options import SecurityOptions
from forebay.remote import NoRemote


class Group(NoRemote):
    """Remembers what it was made of."""

    # Else what it is injected into would ask its members for settings.
    role = "member"
    made: ClassVar[list[dict[str, Any]]] = []
    closed: ClassVar[list[Group]] = []

    def __init__(self, **given: Any) -> None:
        self.made.append(given)

    def close(self) -> None:
        self.closed.append(self)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What groups were made of; security is what its options were."""
    group, options = ModuleType("forebay.peer.group"), ModuleType("forebay.peer.security.options")
    Group.made.clear()
    Group.closed.clear()
    group.Group = Group  # type: ignore[attr-defined]
    options.SecurityOptions = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, group.__name__, group)
    monkeypatch.setitem(sys.modules, options.__name__, options)
    return Group.made


@pytest.fixture
def place(tmp_path: Path, memory_path: Path) -> tuple[Path, list[Tier]]:
    return tmp_path / "cache", [Tier(str(memory_path), 64 * MIB, "MEM")]


def test_a_group_is_made_and_injected(made: list[dict[str, Any]], place: tuple[Path, list[Tier]]) -> None:
    with forebay.open(*place, group="g", peers=["a:1", "b:2"], tls_ca_file="ca.pem", copies=2) as cache:
        group = cache._remote
    assert made == [
        {
            "group": "g",
            "peers": ["a:1", "b:2"],
            "role": "client",
            "cache_dir": str(place[0]),
            "block_bytes": 4 * MIB,
            "security": {"tls_ca_file": "ca.pem"},
            "copies": 2,
        }
    ]
    assert Group.closed == [group]


def test_settings_name_a_group_and_the_call_wins(
    made: list[dict[str, Any]], place: tuple[Path, list[Tier]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_GROUP", "g")
    monkeypatch.setenv("FOREBAY_PEERS", "a:1, b:2,")
    monkeypatch.setenv("FOREBAY_ROLE", "member")
    with forebay.open(*place):
        pass
    with forebay.open(*place, peers="c:3", role="client"):
        pass
    assert [(each["peers"], each["role"]) for each in made] == [
        (["a:1", "b:2"], "member"),
        (["c:3"], "client"),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"peers": "a:1"}, "give the name of their group"),
        ({"group": "g"}, "give the address of a member"),
        ({"group": "g", "peers": []}, "give the address of a member"),
        ({"group": "", "peers": "a:1"}, "is no name"),
        ({"group": "g", "peers": 5}, "peers: expected addresses"),
        ({"group": "g", "peers": "a:1", "role": "cleint"}, "did you mean 'client'"),
        ({"group": "g", "peers": "a:1", "remote": NoRemote()}, "not together with a remote"),
    ],
)
def test_what_does_not_go_together_is_refused(
    made: list[dict[str, Any]], place: tuple[Path, list[Tier]], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        forebay.open(*place, **options)
    assert not place[0].exists()


def test_a_group_is_closed_where_the_cache_cannot_be_opened(
    made: list[dict[str, Any]], place: tuple[Path, list[Tier]]
) -> None:
    with pytest.raises(ConfigError):
        forebay.open(*place, group="g", peers="a:1", block_bytes=3)
    assert len(Group.closed) == len(made) == 1


def test_what_peers_need_is_named_where_it_is_not_installed(
    place: tuple[Path, list[Tier]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "forebay.peer.group", None)
    with pytest.raises(ConfigError, match=r"pip install 'forebay\[server\]'"):
        forebay.open(*place, group="g", peers="a:1")


def test_every_command_opens_its_cache_with_the_group(
    made: list[dict[str, Any]], tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_GROUP", "g")
    monkeypatch.setenv("FOREBAY_PEERS", "a:1")
    session = Session(str(tmp_path / "cache"), tiers=(Tier(str(memory_path), 64 * MIB, "MEM"),))
    with session.open_cache(make=True):
        assert len(made) == 1
    assert len(Group.closed) == 1


def test_without_a_group_nothing_of_peers_is_imported(tmp_path: Path, memory_path: Path) -> None:
    script = (
        "import sys, forebay\n"
        "tier = forebay.Tier(sys.argv[2], '64MiB', 'MEM')\n"
        "with forebay.open(sys.argv[1], [tier], insecure=True) as cache:\n"
        "    cache.datasets()\n"
        "print([name for name in sys.modules if name.startswith(('forebay.peer', 'grpc'))])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), str(memory_path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_options_of_security_are_the_fields_that_they_become() -> None:
    assert list(opening._SECURITY) == [field.name for field in fields(SecurityOptions)]
