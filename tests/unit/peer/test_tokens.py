"""Tokens: what is signed comes back, and nothing else is taken."""

from __future__ import annotations

import base64
import json
import os
import pickle
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import ConfigError
from forebay.peer.security.claims import Claims, Verb
from forebay.peer.security.keys import make_key_pair, read_private_key, read_public_keys
from forebay.peer.security.refusal import Refused
from forebay.peer.security.tokens import TOKEN_BYTES_MAX, Verifier, read_revoked, sign, verify

NOW = 1_800_000_000
KEY = Ed25519PrivateKey.generate()


def claims(**other: object) -> Claims:
    values = {
        "id": "t1",
        "datasets": ["imagenet/train"],
        "verbs": ["read", "list"],
        "networks": [],
        "not_before": NOW,
        "expires": NOW + 3600,
    }
    return Claims.of(**(values | other))  # type: ignore[arg-type]


class Files:
    """A pair of keys in files, and a verifier of them with a clock that stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private, self.public = str(folder / "key"), str(folder / "key.pub")
        make_key_pair(self.private, self.public)
        self.revoked = folder / "revoked"
        self.revoked.write_text("# none yet\n")
        self.now_s = float(NOW)

    def verifier(self) -> Verifier:
        return Verifier([self.public], str(self.revoked), now=lambda: self.now_s, interval_s=0)

    def token(self, **other: object) -> str:
        return sign(claims(**other), read_private_key(self.private))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.strerror in ("not authenticated", "permission denied")
    assert caught.value.reason not in str(caught.value)
    return caught.value.reason


def test_what_is_signed_comes_back() -> None:
    made = claims(networks=["10.0.0.0/8", "fd00::/8"], verbs=list(Verb), datasets=["*"])
    token = sign(made, KEY)
    assert len(token) < 400
    assert verify(token, [Ed25519PrivateKey.generate().public_key(), KEY.public_key()]) == made


@given(st.data())
def test_no_changed_token_is_taken(data: st.DataObject) -> None:
    token = sign(claims(), KEY)
    place = data.draw(st.integers(0, len(token) - 1))
    letters = st.characters(min_codepoint=1, max_codepoint=0x2FF)
    other = data.draw(letters.filter(lambda letter: letter != token[place]))
    changed = data.draw(
        st.sampled_from(
            [
                token[:place] + other + token[place + 1 :],
                token[:place] + token[place + 1 :],
                token[:place] + other + token[place:],
                token + other,
            ]
        )
    )
    with pytest.raises(Refused):
        verify(changed, [KEY.public_key()])


@given(st.text())
def test_no_text_is_taken_for_a_token(text: str) -> None:
    for candidate in (text, f"fb1.{text}", f"fb1.{text}.{'A' * 86}"):
        with pytest.raises(Refused):
            verify(candidate, [KEY.public_key()])


def signed(content: bytes) -> str:
    """Sign anything in the form of a token, as somebody would with our key and another program."""

    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    head = f"fb1.{encode(content)}"
    return f"{head}.{encode(KEY.sign(head.encode()))}"


@pytest.mark.parametrize(
    "change",
    [
        {"only_on_sundays": True},
        {"id": 7},
        {"id": ""},
        {"id": "a\nb"},
        {"datasets": []},
        {"datasets": "imagenet"},
        {"datasets": [1]},
        {"datasets": ["a/../b"]},
        {"datasets": ["/a"]},
        {"datasets": ["a/"]},
        {"datasets": [f"d{number}" for number in range(65)]},
        {"verbs": []},
        {"verbs": ["fly"]},
        {"verbs": [["read"]]},
        {"verbs": ["peer"]},
        {"verbs": ["admin"], "datasets": ["*", "a"]},
        {"networks": ["10.0.0.1/8"]},
        {"networks": ["here"]},
        {"networks": None},
        {"not_before": "now"},
        {"not_before": -1},
        {"expires": 1.5e300},
        {"expires": True},
        {"expires": NOW},
        {"expires": 1 << 60},
    ],
    ids=str,
)
def test_claims_that_are_no_good(change: dict[str, object]) -> None:
    values = claims().to_json()
    assert verify(signed(json.dumps(values).encode()), [KEY.public_key()]) == claims()
    reason = reason_of(lambda: verify(signed(json.dumps(values | change).encode()), [KEY.public_key()]))
    assert reason.startswith("well signed, but ")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"1", b"{}", b"\xff", b"[" * 5000, b'{"id": "t1"}'], ids=repr
)
def test_signed_content_that_is_no_claims(content: bytes) -> None:
    with pytest.raises(Refused):
        verify(signed(content), [KEY.public_key()])


def test_too_many_claims_for_a_token() -> None:
    with pytest.raises(ConfigError, match=f"at most {TOKEN_BYTES_MAX}"):
        sign(claims(datasets=[f"d{number}/{'x' * 200}" for number in range(64)]), KEY)


def test_times_networks_and_revocation(files: Files) -> None:
    verifier = files.verifier()
    token = files.token(networks=["10.0.0.0/8", "fd00::/8"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::7"):
        assert verifier.authenticate(token, address).id == "t1"
    for address in ("11.1.2.3", "::1", "fe80::1%eth0", "unix:/run/x", ""):
        assert "network" in reason_of(partial(verifier.authenticate, token, address))
    assert reason_of(lambda: verifier.authenticate(None, "10.0.0.1")) == "no token"
    assert reason_of(lambda: verifier.authenticate("", "10.0.0.1")) == "no token"
    files.now_s = NOW + 3600
    assert "expired" in reason_of(lambda: verifier.authenticate(token, "10.0.0.1"))
    files.now_s = NOW - 59
    verifier.authenticate(token, "10.0.0.1")
    files.now_s = NOW - 61
    assert "not valid yet" in reason_of(lambda: verifier.authenticate(token, "10.0.0.1"))
    files.now_s = NOW
    files.revoked.write_text("t0\nt1  # lost with a laptop\n")
    assert "revoked" in reason_of(lambda: verifier.authenticate(token, "10.0.0.1"))
    files.revoked.unlink()
    assert "revoked" in reason_of(lambda: verifier.authenticate(token, "10.0.0.1"))


def test_keys_are_replaced_under_a_running_server(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    verifier, old = files.verifier(), files.token()
    make_key_pair(str(files.folder / "new"), str(files.folder / "new.pub"))
    new = sign(claims(), read_private_key(str(files.folder / "new")))
    public, both = Path(files.public), Path(files.public).read_text() + (files.folder / "new.pub").read_text()
    verifier.authenticate(old, "10.0.0.1")
    assert "another key" in reason_of(lambda: verifier.authenticate(new, "10.0.0.1"))
    public.write_text(both)
    for token in (old, new):
        verifier.authenticate(token, "10.0.0.1")
    public.write_text((files.folder / "new.pub").read_text())
    assert "another key" in reason_of(lambda: verifier.authenticate(old, "10.0.0.1"))
    public.write_text("no key at all")
    verifier.authenticate(new, "10.0.0.1")
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_key_that_is_taken_out_ends_what_was_let_in_with_it(files: Files) -> None:
    verifier = files.verifier()
    make_key_pair(str(files.folder / "new"), str(files.folder / "new.pub"))
    public, new = Path(files.public), (files.folder / "new.pub").read_text()
    let_in = verifier.authenticate(files.token(), "10.0.0.1")
    public.write_text(public.read_text() + new)
    verifier.hold(let_in)
    public.write_text(new)
    assert "taken out" in reason_of(lambda: verifier.hold(let_in))


def test_files_of_keys(files: Files, tmp_path: Path) -> None:
    assert stat.S_IMODE(os.stat(files.private).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_key_pair(files.private, str(tmp_path / "other.pub"))
    assert not (tmp_path / "other.pub").exists()
    with pytest.raises(ConfigError, match="holds a private key"):
        read_public_keys(files.private)
    with pytest.raises(ConfigError, match="expected 1 to 16 keys"):
        read_public_keys(str(files.revoked))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_public_keys(str(tmp_path / "absent"))
    os.chmod(files.public, 0o600)
    with pytest.raises(ConfigError, match="no private key"):
        read_private_key(files.public)
    os.chmod(files.private, 0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_private_key(files.private)


def test_lists_of_revoked_tokens(tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    file.write_text("\n a \n# all of it\nb # why\n")
    assert read_revoked(str(file)) == {"a", "b"}
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="plain text"):
        read_revoked(str(file))


def test_pickled_refusals_hold_no_reason() -> None:
    again = pickle.loads(pickle.dumps(Refused("because of PLANTED", is_unauthenticated=True)))
    assert again.is_unauthenticated
    assert b"PLANTED" not in pickle.dumps(Refused("because of PLANTED"))
    assert str(again) == str(Refused("", is_unauthenticated=True))
