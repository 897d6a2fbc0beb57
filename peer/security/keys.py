"""The Ed25519 keys that tokens are signed and verified with, in files of the PEM form."""

from __future__ import annotations

import os
import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from forebay.errors import ConfigError
from forebay.peer.security.watched import read_file

_KEYS_MAX: Final = 16
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_READABLE_BY_OTHERS: Final = 0o044
_NO_KEY: Final = (ValueError, TypeError, UnsupportedAlgorithm)


def write_secret(file: str, content: bytes) -> None:
    """Write a new file that only its owner may read. Raises: OSError (one of that name is there)."""
    _write_new(file, content, 0o600)


def _write_new(file: str, content: bytes, mode: int) -> None:
    """Write a new file, all of it or none. Raises: OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = file
        os.unlink(file)
        raise


def make_key_pair(private_file: str, public_file: str) -> None:
    """Write a new pair; neither file may be there already. Raises: OSError."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(public_file, public, 0o644)
    try:
        write_secret(private_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError:
        os.unlink(public_file)
        raise


def read_private_key(file: str) -> Ed25519PrivateKey:
    """Read the key that signs. Raises: ConfigError (no such key, or a file that others may read)."""
    content = read_file(file, "signing key")
    mode = os.stat(file).st_mode
    if mode & _READABLE_BY_OTHERS:
        raise ConfigError(f"signing key {file}: others may read it; make it private with chmod 600")
    try:
        key = load_pem_private_key(content, None)
    except _NO_KEY:
        # The library's words may hold a part of what it was given.
        raise ConfigError(
            f"signing key {file}: no private key in PEM form, or one with a passphrase"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"signing key {file}: not of Ed25519; make one with `forebay token keygen`")
    return key


def read_public_keys(file: str) -> tuple[Ed25519PublicKey, ...]:
    """Read the keys that verify: one or several, one after the other. Raises: ConfigError."""
    found = []
    for block in _BLOCK.finditer(read_file(file, "public keys")):
        if b"PRIVATE" in block[1]:
            raise ConfigError(f"public keys {file}: holds a private key; only the public one belongs here")
        try:
            key = load_pem_public_key(block[0])
        except _NO_KEY:
            raise ConfigError(f"public keys {file}: no public key in PEM form") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"public keys {file}: not of Ed25519; make one with `forebay token keygen`")
        found.append(key)
    if not 1 <= len(found) <= _KEYS_MAX:
        raise ConfigError(f"public keys {file}: expected 1 to {_KEYS_MAX} keys in PEM form, got {len(found)}")
    return tuple(found)
