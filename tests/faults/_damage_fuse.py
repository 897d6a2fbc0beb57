"""The least FUSE file system that mount(2) takes: one empty directory, served by a thread of this process."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<IIQQIIII")  # length, opcode, unique, nodeid, uid, gid, pid, padding
_REPLY: Final = struct.Struct("<IiQ")
_LOOKUP, _GETATTR, _STATFS, _INIT, _OPENDIR, _RELEASEDIR = 1, 3, 17, 26, 27, 29
_ENOENT, _ENOSYS = 2, 38
_S_IFDIR: Final = 0o040755
_MNT_DETACH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _attributes() -> bytes:
    times = struct.pack("<QQQIII", 0, 0, 0, 0, 0, 0)
    return struct.pack("<QQQ", 1, 0, 0) + times + struct.pack("<IIIIIII", _S_IFDIR, 2, 0, 0, 0, 4096, 0)


def _answer(opcode: int) -> tuple[int, bytes]:
    match opcode:
        case 26:  # INIT: version 7.31 without any extension
            return 0, struct.pack("<IIIIHHIIHHI", 7, 31, 0, 0, 1, 1, 65536, 1, 1, 0, 0) + bytes(28)
        case 3:
            return 0, struct.pack("<QII", 0, 0, 0) + _attributes()
        case 27:
            return 0, struct.pack("<QII", 1, 0, 0)
        case 17:
            return 0, struct.pack("<QQQQQIIII", 1 << 20, 1 << 20, 1 << 20, 0, 0, 4096, 255, 4096, 0) + bytes(
                24
            )
        case 29:
            return 0, b""
        case 1:
            return -_ENOENT, b""
        case _:
            return -_ENOSYS, b""


def _serve(device: int) -> None:
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return  # unmounted
        _, opcode, unique, *_ = _HEADER.unpack_from(request)
        error, body = _answer(opcode)
        # FORGET (2), INTERRUPT (36) and BATCH_FORGET (42) have no reply.
        if opcode not in (2, 36, 42):
            os.write(device, _REPLY.pack(_REPLY.size + len(body), error, unique) + body)


@contextmanager
def fuse_mount(path: Path) -> Iterator[None]:
    """Mount it at a directory. Raises: RuntimeError (no /dev/fuse, or not root)."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeError(f"no FUSE on this host: {error}") from error
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if _libc.mount(b"test", os.fsencode(path), b"fuse.test", 0, options) != 0:
        os.close(device)
        raise RuntimeError(f"cannot mount FUSE: {os.strerror(ctypes.get_errno())}; these tests take root")
    server = threading.Thread(target=_serve, args=(device,), daemon=True)
    server.start()
    try:
        yield
    finally:
        _libc.umount2(os.fsencode(path), _MNT_DETACH)
        server.join(10)
        os.close(device)
