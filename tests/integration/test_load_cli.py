"""The commands of loads: what they print, where, and with which exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.cli import main
from forebay.config import KIB

Run = Callable[..., "Outcome"]


@dataclass
class Outcome:
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def place(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data in it and the environment that names cache directory and tiers."""
    for name in ("FOREBAY_CONFIG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FOREBAY_TIERS", f"{memory_path}:32MiB:MEM")
    for name, data in {"a.bin": b"bytes of a", "sub/b.bin": os.urandom(100 * KIB), "sub/c.txt": b"c"}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    return tmp_path


@pytest.fixture
def run(place: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process, with the folder attached as ``d``."""

    def run_one(*arguments: str) -> Outcome:
        code = main(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    assert run_one("attach", "d", (place / "data").as_uri(), "--immutable").code == 0
    return run_one


def id_of(run: Run) -> str:
    return str(json.loads(run("jobs", "--json").out)[-1]["id"])


def test_load_says_what_it_did(run: Run) -> None:
    first = run("load", "d")
    assert (first.code, first.err) == (0, "")
    assert first.out == "loaded 3 files, 100.0 KiB; cached already: 0 files, 0 B\n"
    assert run("load", "d").out == "loaded 0 files, 0 B; cached already: 3 files, 100.0 KiB\n"
    assert run("load", "d", "--verify").out.startswith("loaded and verified 0 files")
    assert run("load", "d/sub", "--glob", "*.txt").out.endswith("cached already: 1 files, 1 B\n")


def test_metadata_only_and_dry_run(run: Run) -> None:
    assert (
        run("load", "d", "--dry-run").out == "would fetch 3 files, 100.0 KiB; cached already: 0 files, 0 B\n"
    )
    assert run("jobs").out == ""
    assert run("load", "d", "--metadata-only").out == "listed 3 files, 100.0 KiB\n"
    assert json.loads(run("status", "--json").out)["blocks"] == 0


def test_a_file_list_with_bad_lines(run: Run, place: Path) -> None:
    (place / "list").write_text("a.bin\n# no\n\n../x\nnone\n")
    done = run("load", "d", "--files-from", str(place / "list"))
    assert done.code == 1
    assert done.out == "loaded 1 files, 10 B; cached already: 0 files, 0 B\n"
    assert sorted(done.err.splitlines()) == [
        "forebay: d/../x (line 4): contains the part '..'; names are plain: path/to/object",
        "forebay: d/none (line 5): No such file or directory",
        "forebay: incomplete: of 3 files 2 failed",
    ]


def test_a_file_list_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.bin\nsub/c.txt\n")))
    assert run("load", "d", "--files-from", "-").out.startswith("loaded 2 files, 11 B;")


def test_json_of_a_load(run: Run, place: Path) -> None:
    told = json.loads(run("load", "d", "--json").out)
    assert (told["ok"], told["state"], told["results"]) == (True, "done", [])
    assert told["request"]["target"] == "d"
    assert told["progress"]["files_done"] == 3
    (place / "list").write_text("none\nnone2\n")
    done = run("--json", "load", "d", "--files-from", str(place / "list"))
    told = json.loads(done.out)
    assert done.code == 1
    assert (told["ok"], told["state"], told["reason"]) == (False, "incomplete", "of 2 files 2 failed")
    assert sorted((each["line"], each["path"]) for each in told["results"]) == [(1, "d/none"), (2, "d/none2")]


def test_names_move_no_cursor(run: Run, place: Path) -> None:
    (place / "list").write_bytes(b"evil\x1b[2J\n")
    done = run("load", "d", "--files-from", str(place / "list"))
    assert "\x1b" not in done.err + run("jobs").out + run("jobs", "show", id_of(run)).out
    assert "evil\\x1b[2J" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load",), "Missing argument"),
        (("load", "d", "--background", "--dry-run"), "exclude each other"),
        (("load", "d", "--rate-limit", "fast"), "is no size"),
        (("load", "d", "--rate-limit", "0"), "would never end"),
        (("load", "d", "--glob", "/x"), "relative to what is loaded"),
        (("load", "../d"), "contains the part"),
        (("jobs", "show"), "Missing argument"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_what_fails_as_a_whole(run: Run) -> None:
    for arguments, words in (
        (("load", "e"), "no dataset 'e' is attached"),
        (("load", "d", "--files-from", "/no/such/list"), "/no/such/list: No such file or directory"),
        (("load", "d/none"), "No such file or directory"),
        (("jobs", "show", "x"), "there is no job 'x'; see `forebay jobs`"),
        (("resume", "x"), "there is no job 'x'"),
        (("cancel", "x"), "there is no job 'x'"),
    ):
        done = run(*arguments)
        assert (done.code, words in done.err) == (1, True), done


def test_jobs_lists_and_shows(run: Run, place: Path) -> None:
    run("load", "d")
    (place / "list").write_text("a.bin\nnone\n")
    run("load", "d", "--files-from", str(place / "list"), "--glob", "*", "--rate-limit", "1MB", "--verify")
    first, second = run("jobs").out.splitlines()
    assert first.split("\t")[1:5] == ["done", "d", "3/3", "100.0 KiB"]
    assert second.split("\t")[1:5] == ["incomplete", "d", "1/2", "10 B"]
    job_id = second.split("\t")[0]
    shown = run("jobs", "show", job_id).out
    assert re.search(
        r"^asked +glob \*, from a file list, verified, at most 976\.6 KiB/s$", shown, re.MULTILINE
    )
    assert re.search(r"^state +incomplete: of 2 files 1 failed$", shown, re.MULTILINE)
    assert shown.endswith("failed d/none (line 2): No such file or directory\n")
    told = json.loads(run("jobs", "show", job_id, "--json").out)
    assert [each["path"] for each in told["results"]] == ["d/none"]
    assert [job["state"] for job in json.loads(run("--json", "jobs").out)] == ["done", "incomplete"]


def test_resume_tries_again_what_failed(run: Run, place: Path) -> None:
    (place / "list").write_text("a.bin\nlate\n")
    assert run("load", "d", "--files-from", str(place / "list")).code == 1
    (place / "data" / "late").write_bytes(b"late")
    job_id = id_of(run)
    resumed = run("resume", job_id)
    assert (resumed.code, resumed.out) == (0, "loaded 1 files, 4 B; cached already: 1 files, 10 B\n")
    assert run("resume", job_id).code == 0
    assert run("cancel", job_id).code == 1


def test_a_queued_load_can_be_cancelled(run: Run, place: Path) -> None:
    with Cache(place / "cache") as cache:
        job = cache.load("d", start=False)
        assert job.progress().state == "queued"
        assert not job.wait().ok
    done = run("cancel", job.id)
    assert (done.code, done.out) == (0, f"{job.id}: cancelled\n")
    assert run("jobs").out.split("\t")[1] == "cancelled"


def test_a_terminal_shows_a_bar_and_a_pipe_lines(run: Run, place: Path) -> None:
    command = [sys.executable, "-m", "forebay", "load", "d", "--rate-limit", "128KiB", "--glob"]
    for number in range(40):
        (place / "data" / f"more{number}").write_bytes(os.urandom(8 * KIB))
    main_end, terminal = os.openpty()
    with subprocess.Popen([*command, "more*"], stderr=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.close(terminal)
        shown = b""
        # The terminal ends with its last user, which is an error of reading.
        with contextlib.suppress(OSError):
            while part := os.read(main_end, 4096):
                shown += part
        os.close(main_end)
        assert process.stdout is not None
        assert process.stdout.read() == "loaded 40 files, 320.0 KiB; cached already: 0 files, 0 B\n"
    assert process.returncode == 0
    assert b"40 files" in shown
    assert b"\x1b[?25h" in shown  # the cursor is back


def test_a_load_in_the_background(run: Run, place: Path) -> None:
    started = run("load", "d", "--background")
    assert started.code == 0, started
    job_id = started.out.strip()
    with Cache(place / "cache") as cache:
        result = cache.job(job_id).wait(60)
        assert result.ok
        assert result.progress.files_done == 3
        log = Path(cache.job(job_id).log_path)
    assert log.stat().st_mode & 0o077 == 0
    assert "Traceback" not in log.read_text()
    again = json.loads(run("load", "d/sub", "--background", "--json").out)
    with Cache(place / "cache") as cache:
        assert cache.job(again["id"]).wait(60).progress.files_skipped == 2


def test_a_background_load_that_cannot_begin_is_told_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "forebay.cli.load.own_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    done = run("load", "d", "--background")
    assert done.code == 1
    assert re.search(r"job \S+ was not begun; see \S+/log", done.err)
