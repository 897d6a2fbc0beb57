"""``token`` and what is below it: keys for tokens, tokens, and what they say."""

from __future__ import annotations

import os
import secrets
import sys
import time
from datetime import datetime
from types import ModuleType
from typing import Any, Final, NamedTuple

import click

from forebay.cli.app import DONE, FAILED
from forebay.cli.kinds import Moment
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_lines, time_text
from forebay.clock import NS_PER_S
from forebay.errors import ConfigError

_STREAM: Final = "-"
_DAY_S: Final = 24 * 60 * 60
_ID_BYTES: Final = 8
_VERBS: Final = ("read", "list", "load", "manage", "admin", "peer")


class _Security(NamedTuple):
    claims: ModuleType
    keys: ModuleType
    refusal: ModuleType
    tokens: ModuleType


def _security() -> _Security:
    """Return the modules that know tokens. Raises: ConfigError (what they need is not installed)."""
    try:
        from forebay.peer.security import claims, keys, refusal, tokens
    except ImportError as error:
        raise ConfigError(f"tokens need cryptography: pip install 'forebay[server]' ({error})") from error
    return _Security(claims, keys, refusal, tokens)


@click.group()
@common_options
def token() -> None:
    """Make the tokens that callers show to the members of a group."""


@token.command()
@common_options
@click.argument("file", type=click.Path(dir_okay=False))
@pass_session
def keygen(session: Session, file: str) -> None:
    """Make a pair of keys: the private one in FILE, the public one in FILE.pub.

    Members get the public one. Whoever has the private one can make any token.
    """
    public = f"{file}.pub"
    _security().keys.make_key_pair(file, public)
    if session.as_json:
        echo_json({"private": file, "public": public})
    else:
        click.echo(f"{file}: keep it secret; members need {public} (token_keys_file)")


@token.command()
@common_options
@click.option("--key", required=True, metavar="FILE", help="The private key, of `forebay token keygen`.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    metavar="PATH",
    help="A dataset or a path in one, for which it holds; '*' for all. May be given several times.",
)
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    type=click.Choice(_VERBS),
    default=("read", "list"),
    help="What it allows; may be given several times. By default read and list.",
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Only from there, as 10.0.0.0/8; may be given several times.",
)
@click.option(
    "--days", type=click.FloatRange(0, 36_500, min_open=True), default=30.0, help="How long it holds: 30."
)
@click.option("--not-before", type=Moment(), metavar="T", help="From when on, as 2026-12-01T03:00; now.")
@click.option(
    "--id", "identity", metavar="ID", help="Its id, in logs and for revoking it; chance's by default."
)
@click.option("--output", metavar="FILE", help="Write it to a new FILE that only you can read.")
@pass_session
def make(
    session: Session,
    key: str,
    datasets: tuple[str, ...],
    verbs: tuple[str, ...],
    networks: tuple[str, ...],
    days: float,
    not_before: datetime | None,
    identity: str | None,
    output: str | None,
) -> None:
    """Make a token and print it, or write it to a file."""
    security = _security()
    begins = int(time.time() if not_before is None else not_before.timestamp())
    claims = security.claims.Claims.of(
        id=identity or secrets.token_hex(_ID_BYTES),
        datasets=datasets,
        verbs=verbs,
        networks=networks,
        not_before=begins,
        expires=begins + max(1, round(days * _DAY_S)),
    )
    text = security.tokens.sign(claims, security.keys.read_private_key(key))
    if output is not None:
        security.keys.write_secret(output, f"{text}\n".encode("ascii"))
    if session.as_json:
        echo_json({**claims.to_json(), "token": text if output is None else None, "file": output})
    elif output is None:
        click.echo(text)
    else:
        click.echo(f"{output}: token {claims.id}, until {time_text(claims.expires * NS_PER_S)}")


@token.command()
@common_options
@click.argument("file")
@click.option("--keys", required=True, metavar="FILE", help="The public keys that it has to be signed with.")
@click.option("--revoked", metavar="FILE", help="The list of revoked tokens.")
@pass_session
def show(session: Session, file: str, keys: str, revoked: str | None) -> int:
    """Verify the token in FILE (- for standard input), and show what it allows.

    Ends with 1 unless it is good just now.
    """
    security = _security()
    verifier = security.tokens.Verifier([keys], revoked)
    try:
        claims = security.tokens.verify(_read_token(file, security), security.keys.read_public_keys(keys))
    except security.refusal.Refused as refused:
        raise click.ClickException(f"token {_shown(file)}: {refused.reason}") from None
    try:
        verifier.hold(claims)
        state = "valid"
    except security.refusal.Refused as refused:
        state = refused.reason.rpartition(": ")[2]
    if session.as_json:
        echo_json({**claims.to_json(), "state": state})
    else:
        echo_lines(_rows(claims.to_json(), state))
    return DONE if state == "valid" else FAILED


def _read_token(file: str, security: _Security) -> str:
    """Return the text in the file. Raises: ConfigError (the argument is a token itself); OSError."""
    if security.tokens.looks_like_token(file):
        raise ConfigError(
            "the token itself stands in the command line, where others can see it: revoke it, "
            "and give the name of a file, or - for standard input"
        )
    limit = security.tokens.TOKEN_BYTES_MAX + 1
    if file == _STREAM:
        content = sys.stdin.buffer.read(limit)
    else:
        with open(file, "rb") as stream:
            content = stream.read(limit)
    return content.decode("ascii", "replace").strip()


def _shown(file: str) -> str:
    return "on standard input" if file == _STREAM else os.fspath(file)


def _rows(claims: dict[str, Any], state: str) -> list[tuple[str, str]]:
    return [
        ("id", claims["id"]),
        ("state", state),
        ("datasets", " ".join(claims["datasets"])),
        ("verbs", " ".join(claims["verbs"])),
        ("networks", " ".join(claims["networks"]) or "any"),
        ("from", time_text(claims["not_before"] * NS_PER_S)),
        ("until", time_text(claims["expires"] * NS_PER_S)),
    ]
