"""Paths, versions and other names of objects as bytes, which is how messages carry them.

An object's name may be any bytes; as text, those that are no UTF-8 are surrogates.
"""

from __future__ import annotations


def encoded(text: str) -> bytes:
    """Return text as the bytes that it stands for."""
    return text.encode("utf-8", "surrogateescape")


def decoded(raw: bytes) -> str:
    """Return bytes as text, from which ``encoded`` makes the same bytes."""
    return raw.decode("utf-8", "surrogateescape")
