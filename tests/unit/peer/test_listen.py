"""Where a member may listen, and where a token may be sent."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import ConfigError
from forebay.peer.security.credentials import Credentials, TokenSource, token_of
from forebay.peer.security.listen import Address, resolve_listen, split_address
from forebay.peer.security.options import SecurityOptions

TOKEN = "fb1.PLANTED.PLANTED"


def listen(text: str, **how: bool) -> list[str]:
    return [
        str(address)
        for address in resolve_listen(text, **({"has_tls": False, "identifies_callers": False} | how))
    ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names mean what this says."""
    known = {
        "here": ["127.0.0.2"],
        "both": ["127.0.0.1", "10.0.0.1"],
        "out": ["10.0.0.1"],
        "localhost": ["10.0.0.1"],
    }

    def getaddrinfo(host: str, port: int, **how: Any) -> list[Any]:
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in known.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_loopback_needs_nothing(names: None) -> None:
    for text in ("127.0.0.1:7070", "127.9.9.9:1", "[::1]:7070", "[::ffff:127.0.0.1]:1"):
        assert listen(text) == [text]
    assert listen("here:0") == ["127.0.0.2:0"]


@pytest.mark.parametrize(
    "text", ["0.0.0.0:7070", "[::]:7070", "10.0.0.1:7070", "out:1", "both:1", "localhost:1"]
)
def test_beyond_loopback(names: None, text: str) -> None:
    """A name counts by what it means, be it localhost."""
    with pytest.raises(ConfigError, match="there is no TLS"):
        listen(text)
    with pytest.raises(ConfigError, match="there is no TLS"):
        listen(text, identifies_callers=True)
    with pytest.raises(ConfigError, match="anybody may ask"):
        listen(text, has_tls=True)
    assert listen(text, has_tls=True, identifies_callers=True) == listen(text, insecure=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7070",
        ":7070",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "::1:7070",
        "[::1]",
        "h:1:2",
        "http://h:1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError):
        split_address(text)


def test_a_name_that_means_nothing(names: None) -> None:
    with pytest.raises(ConfigError, match="nowhere cannot be resolved"):
        listen("nowhere:1")


def test_addresses_and_names_of_this_machine() -> None:
    assert listen("[::1]:5") == ["[::1]:5"]
    assert "127.0.0.1:5" in listen("localhost:5")


def test_addresses_as_text() -> None:
    assert str(Address("::1", 5)) == "[::1]:5"
    assert split_address("[fd00::1]:5") == ("fd00::1", 5)


def test_options_say_who_is_identified(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no TLS"):
        SecurityOptions().resolve_listen("0.0.0.0:1")
    with pytest.raises(ConfigError, match="anybody"):
        SecurityOptions(tls_cert_file="c", tls_key_file="k").resolve_listen("0.0.0.0:1")
    for options in (
        SecurityOptions(tls_cert_file="c", tls_key_file="k", token_keys_file="p"),
        SecurityOptions(tls_cert_file="c", tls_key_file="k", tls_ca_file="a", tls_mutual=True),
    ):
        assert options.resolve_listen("0.0.0.0:1") == [("0.0.0.0", 1)]
    assert SecurityOptions(insecure=True).resolve_listen("0.0.0.0:1")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def test_tokens_are_read_by_reference(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    for reference in (str(token_file), "env:MY_TOKEN"):
        source = TokenSource(reference, interval_s=0)
        assert source.token() == TOKEN
        again = pickle.loads(pickle.dumps(source))
        assert again.token() == TOKEN
        for text in (repr(source), repr(pickle.dumps(source)), repr(vars(Credentials(token=reference)))):
            assert "PLANTED" not in text
    source = TokenSource(str(token_file), interval_s=0)
    token_file.write_text("fb1.NEW.NEW")
    assert source.token() == "fb1.NEW.NEW"
    token_file.write_text("")
    assert source.token() == "fb1.NEW.NEW"


@pytest.mark.parametrize(
    "content", ["", "\n", "PLANTED", "fb1.PLANTED\nx: y", "fb1.PLANTED é", "fb1." + "x" * 9000]
)
def test_what_is_no_token_is_not_shown(
    token_file: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file.write_text(content)
    monkeypatch.setenv("MY_TOKEN", content)
    for reference in (str(token_file), "env:MY_TOKEN", "env:NO_TOKEN", "/nowhere", TOKEN):
        with pytest.raises(ConfigError) as caught:
            TokenSource(reference)
        assert "PLANTED" not in str(caught.value)
    os.unlink(token_file)


def test_no_token_goes_over_a_network_in_the_clear(token_file: Path) -> None:
    plain = Credentials(token=str(token_file))
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        assert plain.token_for(address) == TOKEN
    for address in ("10.0.0.1:1", "elsewhere:1", "[fd00::1]:1"):
        for ask in (plain.token_for, plain.open_channel, plain.open_aio_channel):
            with pytest.raises(ConfigError, match="in the clear"):
                ask(address)
        assert Credentials(token=str(token_file), insecure=True).token_for(address) == TOKEN
        assert Credentials().token_for(address) is None


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        ((), None),
        (None, None),
        ((("authorization", f"Bearer {TOKEN}"),), TOKEN),
        ((("authorization", TOKEN),), None),
        ((("authorization", f"Basic {TOKEN}"),), None),
        ((("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer fb1.x")), None),
        ((("authorization-bin", b"Bearer x"),), None),
    ],
)
def test_tokens_in_metadata(metadata: Any, token: str | None) -> None:
    assert token_of(metadata) == token
