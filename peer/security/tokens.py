"""Bearer tokens: claims signed with Ed25519, which whoever has the public key can verify.

A token is ``fb1.CLAIMS.SIGNATURE``, the last two in base64url without padding; the signature is over all
that stands before it, so that it means nothing for anything else that the same key may sign. Nothing here
compares secrets: verifying takes none, and what was verified before is found by a digest.
Source: RFC 8032 for Ed25519; the form is like that of RFC 7515 without a choice of algorithms.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from forebay.errors import ConfigError
from forebay.peer.security.claims import Claims
from forebay.peer.security.keys import read_public_keys
from forebay.peer.security.refusal import Refused
from forebay.peer.security.watched import LOOK_INTERVAL_S, Watched, read_file

TOKEN_BYTES_MAX: Final = 8192

_PREFIX: Final = "fb1"
_FORM: Final = re.compile(rf"({_PREFIX}\.([A-Za-z0-9_-]+))\.([A-Za-z0-9_-]{{86}})")
_VERIFIED_MAX: Final = 4096
# Clocks of hosts differ a little: a token that was made just now is good everywhere.
_EARLY_S: Final = 60
_REVOKED_BYTES_MAX: Final = 16 << 20

_Keys = Mapping[bytes, Ed25519PublicKey]

unauthenticated: Final = partial(Refused, is_unauthenticated=True)


def looks_like_token(text: str) -> bool:
    """Say whether a text that was given for something else may be a token: then it is not to be shown."""
    return text.strip().startswith(f"{_PREFIX}.")


def sign(claims: Claims, key: Ed25519PrivateKey) -> str:
    """Make the token. Raises: ConfigError (so many claims that nobody would take it)."""
    head = f"{_PREFIX}.{_encode(claims.to_bytes())}"
    token = f"{head}.{_encode(key.sign(head.encode('ascii')))}"
    if len(token) > TOKEN_BYTES_MAX:
        raise ConfigError(f"the token has {len(token)} bytes, at most {TOKEN_BYTES_MAX}; name fewer datasets")
    return token


def verify(token: str, keys: Sequence[Ed25519PublicKey]) -> Claims:
    """Return the claims of a token that one of the keys has signed; times and networks are not looked at.

    Raises: Refused.
    """
    match = _FORM.fullmatch(token) if len(token) <= TOKEN_BYTES_MAX else None
    if match is None:
        raise unauthenticated("not in the form of a token")
    try:
        signature, encoded = _decode(match[3]), _decode(match[2])
    except (binascii.Error, ValueError):
        raise unauthenticated("not in the form of a token") from None
    for key in keys:
        try:
            key.verify(signature, match[1].encode("ascii"))
        except InvalidSignature:
            continue
        try:
            return replace(Claims.from_bytes(encoded), signer=key.public_bytes_raw())
        except ConfigError as error:
            raise unauthenticated(f"well signed, but {error}") from None
    raise unauthenticated("tampered with, or signed by another key than those that are known here")


def read_revoked(file: str) -> frozenset[str]:
    """Read the ids of revoked tokens: one a line, ``#`` begins a comment. Raises: ConfigError."""
    try:
        text = read_file(file, "revoked tokens", _REVOKED_BYTES_MAX).decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"revoked tokens {file}: not plain text with an id a line") from None
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return frozenset(line for line in lines if line)


class Verifier:
    """Holds tokens against public keys, the list of revoked ones, the clock and the caller's address.

    The files are read again when they change; tokens signed by a key that was taken out are refused from
    then on. Threads: any.
    """

    def __init__(
        self,
        key_files: Sequence[str],
        revoked_file: str | None = None,
        *,
        now: Callable[[], float] = time.time,
        interval_s: float = LOOK_INTERVAL_S,
    ) -> None:
        """Read the files, each with one or several keys. Raises: ConfigError."""
        if not key_files:
            raise ConfigError("tokens cannot be verified without a file of public keys")
        self._now = now
        self._keys = Watched(key_files, lambda: _keys_of(key_files), interval_s)
        self._revoked = (
            None
            if revoked_file is None
            else Watched([revoked_file], lambda: read_revoked(revoked_file), interval_s)
        )
        # By the digest of a token, for the keys of that moment; a signature takes 0.1 ms to verify.
        self._verified: tuple[_Keys, dict[bytes, Claims]] = ({}, {})

    def authenticate(self, token: str | None, address: str) -> Claims:
        """Return the claims of a good token that is used from the address. Raises: Refused."""
        if not token:
            raise unauthenticated("no token")
        claims = self._verify(token)
        self.hold(claims)
        if not claims.allows_from(address):
            raise Refused(f"token {claims.id}: not for this network")
        return claims

    def hold(self, claims: Claims) -> None:
        """Look again whether the token still holds: connections may outlive it. Raises: Refused."""
        now_s = self._now()
        if now_s >= claims.expires:
            raise unauthenticated(f"token {claims.id}: expired")
        if now_s < claims.not_before - _EARLY_S:
            raise unauthenticated(f"token {claims.id}: not valid yet")
        if claims.signer not in self._keys.current():
            raise unauthenticated(f"token {claims.id}: signed by a key that was taken out")
        if self._revoked is not None and claims.id in self._revoked.current():
            raise unauthenticated(f"token {claims.id}: revoked")

    def _verify(self, token: str) -> Claims:
        keys = self._keys.current()
        of_keys, verified = self._verified
        if of_keys is not keys or len(verified) >= _VERIFIED_MAX:
            verified = {}
            self._verified = (keys, verified)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = verified.get(digest)
        if claims is None:
            claims = verified[digest] = verify(token, list(keys.values()))
        return claims


def _keys_of(files: Sequence[str]) -> _Keys:
    """Read the public keys in the files, each by its own bytes. Raises: ConfigError."""
    return {key.public_bytes_raw(): key for file in files for key in read_public_keys(file)}


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Decode the one form that a content has: bits that do not count are zero."""
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(content) != text:
        raise ValueError("not in its one form")
    return content
