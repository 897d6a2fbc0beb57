"""How far long work is, where there is no terminal."""

from __future__ import annotations

import threading

import pytest

from forebay.cli import progress


def test_lines_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    with progress.progress_of("copying\x1b", 4096) as advance:
        advance(1024)
        advance(1024)
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        r"copying\x1b: 1.0 KiB of 4.0 KiB",
        r"copying\x1b: 2.0 KiB of 4.0 KiB",
    ]
    assert told.out == ""


def test_no_line_before_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_of("copying", 100) as advance:
        advance(100)
    assert capsys.readouterr().err == ""


def test_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    with progress.progress_of("copying", 100, quiet=True) as advance:
        advance(100)
    assert capsys.readouterr().err == ""


def test_threads_add_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    with progress.progress_of("copying", 80) as advance:
        threads = [threading.Thread(target=advance, args=(10,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "copying: 80 B of 80 B" in capsys.readouterr().err.splitlines()
