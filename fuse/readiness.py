"""Telling whoever started a mount that it serves: a process that waits at a pipe, and systemd."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

_READY: Final = b"ready\n"


def tell_ready(descriptor: int | None) -> None:
    """Say once that the mount serves, and close the descriptor, if one was given.

    With NOTIFY_SOCKET set, systemd or who speaks like it is told as well (Type=notify).
    """
    if descriptor is not None:
        # Whoever waited may have gone.
        with suppress(BrokenPipeError):
            os.write(descriptor, _READY)
        os.close(descriptor)
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        if address.startswith("@"):
            address = "\0" + address[1:]
        # Who asked to be told may have gone; the mount serves all the same.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address)


def wait_ready(descriptor: int) -> bool:
    """Wait until the other end of a pipe says so, and close ours; False if it closed without a word."""
    try:
        return bool(os.read(descriptor, len(_READY)))
    finally:
        os.close(descriptor)
