"""The fault proxy in a process of its own, so that it shares no interpreter lock with its clients."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import IO, Any, Final, Self

from forebay.testing.faults import Fault

_EXIT_TIMEOUT_S: Final = 10.0


class ProxyProcess:
    """A running ``python -m forebay.testing.proxy``; a context manager, for one thread.

    target is HOST:PORT, bandwidth what ``parse_bytes`` takes, a second, in each direction. The process ends
    with this one, however this one ends.
    Raises: RuntimeError (it did not start; its own words stand on standard error).
    """

    def __init__(
        self,
        target: str,
        *,
        listen: str = "127.0.0.1:0",
        delay_ms: float = 0.0,
        bandwidth: str | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        """Start the process and wait until it listens."""
        command = [
            sys.executable,
            "-m",
            "forebay.testing.proxy",
            "--control",
            "--listen",
            listen,
            "--target",
            target,
        ]
        command += ["--delay-ms", str(delay_ms)]
        if bandwidth is not None:
            command += ["--bandwidth", bandwidth]
        self._process: Final = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        host, port = self._read_answer()["listening"]
        self.address: Final = f"{host}:{port}"
        self.url: Final = f"http://{self.address}"
        self.set_faults(faults)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def stats(self, *, reset: bool = False) -> dict[str, Any]:
        """Return what has passed, as ``Proxy.stats``."""
        return self._ask({"do": "stats", "reset": reset})

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Put these rules in the place of the earlier ones."""
        self._ask({"do": "faults", "faults": [fault.to_json() for fault in faults]})

    def close(self) -> None:
        """Let the process end and wait for it."""
        stdin, stdout = self._pipes()
        stdin.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        stdin, _ = self._pipes()
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        line = self._pipes()[1].readline()
        if not line:
            self.close()
            raise RuntimeError(f"the proxy process ended with status {self._process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        """Return this proxy, already running."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the process."""
        self.close()
