"""The data port that a member had last. It takes that one again: readers learn of another seconds later.

v1/data-port    its number; what is damaged there, or taken by somebody else by now, means nothing
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from forebay.config import FORMAT_FOLDER
from forebay.peer.data.server import DataServer
from forebay.peer.security.listen import PORT_MAX

_log: Final = logging.getLogger(__name__)

_FILE: Final = "data-port"
_FILE_BYTES_MAX: Final = 16


def start_where_it_was(data: DataServer, host: str, cache_dir: str | os.PathLike[str]) -> int:
    """Listen at the port of the last time, or at a free one; return which. Raises: OSError."""
    path = Path(cache_dir, FORMAT_FOLDER, _FILE)
    last = _read(path)
    if last is not None:
        with suppress(OSError):
            return data.start(host, last)
    port = data.start(host)
    try:
        beside = path.with_suffix(".new")
        beside.write_text(f"{port}\n")
        beside.replace(path)
    except OSError as error:
        _log.warning("the data port is another one after the next start: %s", error)
    return port


def _read(path: Path) -> int | None:
    with suppress(OSError, ValueError), path.open("rb") as file:
        port = int(file.read(_FILE_BYTES_MAX))
        return port if 0 < port <= PORT_MAX else None
    return None
