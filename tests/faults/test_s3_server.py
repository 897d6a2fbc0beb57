"""The S3 server that tests and demonstrations run ends with whoever started it."""

from __future__ import annotations

import os
import select
from multiprocessing.connection import Connection
from pathlib import Path

from forebay.testing.s3 import S3Server
from tests.faults._child import DEADLINE_S, Child


def test_it_ends_with_a_killed_process(tmp_path: Path) -> None:
    def serve(link: Connection) -> None:
        with S3Server(tmp_path) as server:
            link.send(server.pid)
            link.recv()

    with Child(serve) as child:
        server = os.pidfd_open(child.receive())
        child.kill()
        child.exit_code()
    try:
        assert select.select([server], [], [], DEADLINE_S)[0] == [server]
    finally:
        os.close(server)
