"""The command line as a program: exit codes, signals, pipes, terminals, completion, every command over S3."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from forebay.config import MIB
from forebay.testing.faults import Fault
from forebay.testing.proxy_process import ProxyProcess
from forebay.testing.s3 import S3Server
from tests.integration._cli import PROGRAM, TIMEOUT_S, Cli, program, started

# However busy the machine is, and before a server that says nothing is given up (30 s).
AT_ONCE_S = 25.0

# The command line with a bench that goes on putting until it is interrupted, however late that is.
ENDLESS_BENCH = """
import runpy
from forebay.cli import bench

class Endless(bench.BlockStore):
    def put(self, key, data):
        while True:
            super().put(key, data)

bench.BlockStore = Endless
runpy.run_module("forebay", run_name="__main__", alter_sys=True)
"""


def test_exit_codes(attached: Cli) -> None:
    assert program("cat", "d/a.bin").stdout == "bytes of a"
    assert program("cat", "d/none").returncode == 1
    assert program("cat").returncode == 2


def test_the_installed_script(attached: Cli) -> None:
    script = Path(sys.executable).parent / "forebay"
    done = subprocess.run([script, "ls", "d"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (0, "d/a.bin\nd/sub/\n")


def test_every_command_over_s3(cli: Cli, s3_server: S3Server, tmp_path: Path) -> None:
    bucket = tmp_path / "buckets/bucket"
    (bucket / "sub").mkdir()
    (bucket / "a.bin").write_bytes(b"bytes of a")
    (bucket / "sub/b.bin").write_bytes(os.urandom(5 * MIB))
    target = tmp_path / "target"
    for arguments, words in (
        (["attach", "s", "s3://bucket", "--endpoint-url", s3_server.endpoint_url], "attached s"),
        (["datasets"], "s3://bucket"),
        (["ls", "-lR", "s"], "s/sub/b.bin"),
        (["stat", "s/a.bin"], "10 bytes"),
        (["cat", "s/a.bin", "--length", "5"], "bytes"),
        (["cp", "-r", "s", str(target)], ""),
        (["du", "s"], "100.0 %"),
        (["sync", "s"], "s: 0 new, 0 changed, 0 gone"),
        (["status"], "hit ratio"),
        (["top", "--once", "--interval", "0.1"], "a second"),
        (["check"], "verified"),
        (["free", "--all", "s"], "freed s"),
        (["bench", "--size", "16MiB"], "readinto"),
        (["completion", "bash"], "_forebay_completion"),
        (["detach", "s"], "detached s"),
    ):
        done = program(*arguments)
        assert (done.returncode, words in done.stdout) == (0, True), (
            f"{arguments}: {done.stdout} {done.stderr}"
        )
    assert (target / "sub/b.bin").read_bytes() == (bucket / "sub/b.bin").read_bytes()


def test_verbose_shows_the_traceback_and_the_log(attached: Cli) -> None:
    assert "Traceback" not in program("stat", "d/none").stderr
    told = program("stat", "d/none\x1b[2J", "-vv").stderr
    assert "Traceback" in told
    assert "\x1b" not in told


def test_a_closed_pipe_is_quiet(attached: Cli) -> None:
    attached.write("big", os.urandom(4 * MIB))
    for command in ("cat d/big d/big d/big", "ls -R --json d d d", "status --json"):
        pipeline = f"{shlex.join(PROGRAM)} {command} | head -c 10 | wc -c"
        done = subprocess.run(
            ["bash", "-c", pipeline], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert (done.stdout.strip(), done.stderr) == ("10", "")


def test_a_full_output_is_told_of(attached: Cli) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "cat", "d/a.bin"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "forebay: standard output: No space left on device\n")


def wait_for_exit(
    process: subprocess.Popen[str], signalled: signal.Signals = signal.SIGINT
) -> tuple[int, str]:
    """Send a signal to a process, and return its exit code and standard error, which come at once."""
    interrupted_s = time.monotonic()
    process.send_signal(signalled)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert time.monotonic() - interrupted_s < AT_ONCE_S
    return process.returncode, told


def test_an_interrupt_ends_it_while_a_server_is_silent(cli: Cli, s3_server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = started(["attach", "s", "s3://bucket", "--endpoint-url", url])
        silent.settimeout(TIMEOUT_S)
        connection, _ = silent.accept()
        with connection:
            assert wait_for_exit(process) == (130, "forebay: interrupted\n")


@pytest.mark.parametrize(
    ("signalled", "end"),
    [
        (signal.SIGINT, (130, "forebay: interrupted\n")),
        (signal.SIGTERM, (143, "forebay: terminated\n")),
    ],
)
def test_an_interrupted_cp_leaves_nothing(
    cli: Cli, s3_server: S3Server, tmp_path: Path, signalled: signal.Signals, end: tuple[int, str]
) -> None:
    (tmp_path / "buckets/bucket/big").write_bytes(os.urandom(12 * MIB))
    target = tmp_path / "target"
    target.mkdir()
    stalled = Fault("cut", after_bytes=MIB, match="GET /bucket/big")
    with ProxyProcess(s3_server.address, faults=[stalled]) as proxy:
        assert cli("attach", "s", "s3://bucket", "--endpoint-url", proxy.url).code == 0
        process = started(["cp", "s/big", str(target)])
        deadline_s = time.monotonic() + TIMEOUT_S
        while not any(target.iterdir()) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert [path.suffix for path in target.iterdir()] == [".partial"]
        assert wait_for_exit(process, signalled) == end
    assert list(target.iterdir()) == []


def test_an_interrupted_bench_leaves_nothing(cli: Cli, memory_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_BENCH, "bench", "--size", "64MiB"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + TIMEOUT_S
    while not list(memory_path.glob("*/tier/v1/seg-*")) and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert wait_for_exit(process) == (130, "forebay: interrupted\n")
    assert list(memory_path.iterdir()) == []


def test_top_counts_what_others_do_until_it_is_interrupted(attached: Cli) -> None:
    process = started(["top", "--json", "--interval", "0.1"])
    assert process.stdout is not None
    rates = json.loads(process.stdout.readline())
    while rates["hits_per_s"] == 0:
        assert attached("cat", "d/a.bin").code == 0
        rates = json.loads(process.stdout.readline())
    assert rates["hit_bytes_per_s"] > 0
    assert wait_for_exit(process) == (130, "forebay: interrupted\n")


def on_terminal(arguments: list[str], *, until: bytes | None = None) -> tuple[int, bytes]:
    """Run a command line on a terminal and return exit code and screen; interrupt it when `until` is seen."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
    )
    os.close(terminal)
    screen = b""
    # When the other end is closed, a terminal gives an error rather than an end.
    with suppress(OSError):
        while read := os.read(controller, 65536):
            screen += read
            if until is not None and until in screen:
                process.send_signal(signal.SIGINT)
                until = None
    os.close(controller)
    return process.wait(TIMEOUT_S), screen


def test_on_a_terminal(attached: Cli, tmp_path: Path) -> None:
    (attached.data / "sub" / "es\x1b[2Jc").write_bytes(b"")
    code, screen = on_terminal(["ls", "-l", "d/sub"])
    assert code == 0
    assert b"modified" in screen
    assert rb"d/sub/es\x1b[2Jc" in screen
    assert b"\x1b[2J" not in screen
    code, screen = on_terminal(["cp", "-r", "d", str(tmp_path / "target")])
    assert (code, b"copied 4 files" in screen) == (0, True)


def test_top_gives_the_terminal_back(attached: Cli) -> None:
    code, screen = on_terminal(["top", "--interval", "0.1"], until=b"a second")
    assert code == 130
    enter, leave, show_cursor = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"
    assert screen.index(enter) < screen.rindex(leave)
    assert show_cursor in screen[screen.index(enter) :]


def complete(shell: str, words: str) -> list[str]:
    """Return what a shell would be offered for a line; its last word is what is being completed."""
    typed = words.split(" ")
    position = str(len(typed) - 1)
    environ = {"_FOREBAY_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": position}
    if shell == "fish":
        environ["COMP_CWORD"] = typed[-1]
    done = program(env={**os.environ, **environ})
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if line]


def test_completion_of_commands_and_options(attached: Cli) -> None:
    assert complete("bash", "forebay det") == ["plain,detach"]
    assert complete("bash", "forebay attach --end") == ["plain,--endpoint-url"]
    assert complete("zsh", "forebay sta")[:2] == ["plain", "stat"]
    assert [line.split("\t")[0] for line in complete("fish", "forebay sta")] == ["plain,stat", "plain,status"]


def test_completion_asks_no_under_storage(attached: Cli) -> None:
    assert complete("bash", "forebay detach ") == ["plain,d"]
    attached.write("strange $(name)", b"")
    attached("ls", "d")
    for path in attached.data.rglob("*.bin"):
        path.unlink()
    assert complete("bash", "forebay cat d/") == ["plain,d/a.bin", "plain,d/sub/"]
    assert complete("bash", "forebay cat d/su") == ["plain,d/sub/"]
    assert complete("bash", "forebay cat ") == ["plain,d/", "plain,d/a.bin", "plain,d/sub/"]
    assert complete("bash", "forebay ls d/a") == ["plain,d/a.bin"]
    attached("ls", "d/sub")
    assert complete("bash", "forebay cat d/su") == ["plain,d/sub/", "plain,d/sub/c"]


def test_completion_where_there_is_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("bash", "forebay cat d/") == []
    assert not (cli.place / "cache").exists()
    monkeypatch.setenv("FOREBAY_ROWS", "many")
    assert complete("bash", "forebay cat d/") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli: Cli, shell: str) -> None:
    script = cli("completion", shell)
    assert (script.code, f"{shell}_complete" in script.text) == (0, True)


def test_bash_completes_with_the_script(attached: Cli, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/forebay").write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    (tmp_path / "bin/forebay").chmod(0o755)
    (tmp_path / "script").write_text(attached("completion", "bash").text)
    line = (
        f"source {tmp_path}/script; COMP_WORDS=(forebay detach ''); COMP_CWORD=2; "
        '_forebay_completion forebay "" detach; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
    )
    assert (done.stdout, done.stderr) == ("d\n", "")


def test_names_that_the_terminal_cannot_show(attached: Cli) -> None:
    attached.write("文", b"")
    done = program("ls", "d", env={**os.environ, "PYTHONIOENCODING": "iso-8859-1"})
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, r"d/\u6587")


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from forebay.cli import main; main(['--help'])\n"
        "heavy = {'boto3', 'lmdb', 'rich', 'prometheus_client', 'forebay.cache', 'forebay.store'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=TIMEOUT_S
    )
    assert done.stdout.splitlines()[-1] == "[]"
