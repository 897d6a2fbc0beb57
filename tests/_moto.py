"""moto's S3 in threads of this process: AWS's errors and answers, as far as they are known to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from tests._s3 import BUCKET

_ACCOUNT = "123456789012"


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
