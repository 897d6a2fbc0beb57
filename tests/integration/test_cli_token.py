"""``forebay token``: keys and tokens in files that others cannot read, and no secret on the screen."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from forebay.peer.security.tokens import Verifier
from tests.integration._cli import Cli


class Keys:
    """A pair of keys in files."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli, self.folder = cli, folder
        self.private, self.public = str(folder / "key"), str(folder / "key.pub")
        assert cli("token", "keygen", self.private).code == 0

    def make(self, *options: str) -> str:
        made = self.cli("token", "make", "--key", self.private, *options)
        assert made.code == 0, made.err
        return made.text.strip()

    def kept(self, token: str) -> str:
        """Write the token to a file."""
        file = self.folder / "token"
        file.write_text(token)
        return str(file)


@pytest.fixture
def keys(cli: Cli, tmp_path: Path) -> Keys:
    return Keys(cli, tmp_path)


def test_keys_are_private_and_never_written_over(cli: Cli, keys: Keys) -> None:
    assert stat.S_IMODE(os.stat(keys.private).st_mode) == 0o600
    before = Path(keys.private).read_bytes()
    again = cli("token", "keygen", keys.private)
    assert again.code == 1
    assert "File exists" in again.err
    os.unlink(keys.public)
    assert cli("token", "keygen", keys.private).code == 1
    assert Path(keys.private).read_bytes() == before
    assert not Path(keys.public).exists()


def test_a_token_in_a_file(cli: Cli, keys: Keys, tmp_path: Path) -> None:
    file = str(tmp_path / "mine")
    arguments = ["--dataset", "imagenet/train", "--verb", "load", "--network", "10.0.0.0/8", "--id", "me"]
    told = keys.make(*arguments, "--output", file)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    token = Path(file).read_text().strip()
    assert token not in told
    shown = cli("token", "show", file, "--keys", keys.public, "--json")
    assert shown.code == 0
    found = json.loads(shown.out)
    assert found["expires"] - found["not_before"] == 30 * 24 * 3600
    assert abs(found["not_before"] - time.time()) < 600
    of = {name: found[name] for name in ("id", "datasets", "verbs", "networks", "state")}
    assert of == {
        "id": "me",
        "datasets": ["imagenet/train"],
        "verbs": ["load"],
        "networks": ["10.0.0.0/8"],
        "state": "valid",
    }
    assert Verifier([keys.public]).authenticate(token, "10.0.0.1").id == "me"
    again = cli("token", "make", "--key", keys.private, *arguments, "--output", file)
    assert again.code == 1
    assert Path(file).read_text().strip() == token


def test_a_token_on_standard_output(cli: Cli, keys: Keys) -> None:
    token = keys.make("--dataset", "*")
    claims = Verifier([keys.public]).authenticate(token, "127.0.0.1")
    assert sorted(claims.verbs) == ["list", "read"]
    shown = cli("token", "show", keys.kept(token), "--keys", keys.public)
    assert (shown.code, shown.lines[1:3]) == (0, ["state\tvalid", "datasets\t*"])
    assert json.loads(keys.make("--dataset", "*", "--json"))["token"].startswith("fb1.")


def test_tokens_that_are_not_good(cli: Cli, keys: Keys, tmp_path: Path) -> None:
    late = keys.make("--dataset", "d", "--not-before", "2001-01-01T00:00", "--days", "1")
    early = keys.make("--dataset", "d", "--not-before", "2201-01-01T00:00")
    revoked = keys.make("--dataset", "d", "--id", "lost")
    (tmp_path / "revoked").write_text("lost\n")
    for token, state in ((late, "expired"), (early, "not valid yet"), (revoked, "revoked")):
        arguments = ["--keys", keys.public, "--revoked", str(tmp_path / "revoked")]
        shown = cli("token", "show", keys.kept(token), *arguments)
        assert (shown.code, shown.lines[1]) == (1, f"state\t{state}")
    other = tmp_path / "other"
    assert cli("token", "keygen", str(other)).code == 0
    foreign = cli("token", "show", keys.kept(revoked), "--keys", f"{other}.pub")
    assert (foreign.code, foreign.out) == (1, b"")
    assert "another key" in foreign.err
    assert revoked not in foreign.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "a/../b"], "part '..'"),
        (["--dataset", "d", "--verb", "peer"], "for all datasets"),
        (["--dataset", "d", "--network", "10.0.0.1/8"], "host bits"),
        (["--dataset", "d", "--id", "a b"], "a token's id"),
        (["--dataset", "d", "--days", "0"], "--days"),
        (["--dataset", "d", "--verb", "fly"], "fly"),
        ([], "--dataset"),
    ],
    ids=str,
)
def test_bad_options(cli: Cli, keys: Keys, options: list[str], words: str) -> None:
    done = cli("token", "make", "--key", keys.private, *options)
    assert (done.code, done.out) == (2, b"")
    assert words in done.err


def test_files_that_are_something_else(cli: Cli, keys: Keys, tmp_path: Path) -> None:
    secret = Path(keys.private).read_text().splitlines()[1]
    for arguments in (
        ["show", keys.private, "--keys", keys.public],
        ["show", keys.public, "--keys", keys.private],
        ["show", str(tmp_path / "absent"), "--keys", keys.public],
        ["make", "--key", keys.public, "--dataset", "d"],
        ["make", "--key", str(tmp_path), "--dataset", "d"],
    ):
        done = cli("token", *arguments, "-vv")
        assert done.code in (1, 2), arguments
        assert done.err
        assert "internal" not in done.err
        assert secret not in done.err + done.text


def test_a_token_in_the_command_line_is_not_repeated(cli: Cli, keys: Keys) -> None:
    token = keys.make("--dataset", "d")
    for arguments in (
        ["token", "show", token, "--keys", keys.public],
        ["ls", "--set", f"token_file={token}"],
        ["ls", "--set", f"tls_key_file={Path(keys.private).read_text()}"],
    ):
        done = cli(*arguments, "-vv")
        assert done.code == 2
        assert token not in done.err
        assert "PRIVATE" not in done.err
