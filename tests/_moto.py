"""moto's S3 in threads of this process: AWS's errors and answers, as far as they are known to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from werkzeug.serving import ThreadedWSGIServer

from tests._s3 import BUCKET

_ACCOUNT = "123456789012"


class Connections:
    """How many connections the servers of this process are serving."""

    def __init__(self) -> None:
        self.count = 0
        self._lock: Final = threading.Lock()
        original = ThreadedWSGIServer.process_request_thread

        def counted(server: ThreadedWSGIServer, request: Any, address: Any) -> None:
            self._add(1)
            try:
                original(server, request, address)
            finally:
                self._add(-1)

        ThreadedWSGIServer.process_request_thread = counted  # type: ignore[assignment,method-assign]

    def _add(self, number: int) -> None:
        with self._lock:
            self.count += number


# Of whoever was killed, none is left when its requests have done what they do.
connections: Final = Connections()


@contextmanager
def moto_server() -> Iterator[str]:
    """Run a server; give its URL."""
    # It tells each request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def begin_anew() -> None:
    """Forget everything and make one empty bucket."""
    backend = s3_backends[_ACCOUNT]["aws"]
    backend.reset()
    backend.create_bucket(BUCKET, "us-east-1")


def put_into_moto(key: str, data: bytes) -> None:
    """Put an object without a request."""
    s3_backends[_ACCOUNT]["aws"].put_object(BUCKET, key, data)
