"""How errors are told: what, where, and what can be done, in a line."""

from __future__ import annotations

import errno
import json

import pytest

from forebay import errors
from forebay.cli.app import complain, is_of_output


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.not_found("s3://b/x"), "s3://b/x: no such object; see what there is with `forebay ls`"),
        (
            errors.forbidden("s3://b/x", "HTTP 403"),
            "s3://b/x: HTTP 403; check the credentials (AWS_PROFILE, attach --profile) or access rights",
        ),
        (
            errors.timed_out("s3://b/x", "no answer."),
            "s3://b/x: no answer; check the URI and --endpoint-url, and that it can be reached",
        ),
        (
            errors.under_storage_error("s3://b/x", "HTTP 500"),
            "s3://b/x: HTTP 500; check the URI and --endpoint-url, and that it can be reached",
        ),
        (
            errors.stale("d/x", "1", "2"),
            "d/x: the object changed: expected version '1', found '2'; "
            "unless it is being written just now, `forebay sync` asks anew",
        ),
        (
            errors.StoreBusy("page 7 is locked"),
            "page 7 is locked; another process is stopped inside the cache: let it go on, or end it",
        ),
        (errors.ConfigError("rows: 1 is too few"), "rows: 1 is too few"),
        (errors.NotAttached("no dataset 'x' is attached"), "no dataset 'x' is attached"),
        (OSError(errno.ENOSPC, "No space left on device", "/t/x"), "/t/x: No space left on device"),
        (IsADirectoryError(errno.EISDIR, "is a directory", "d/x"), None),
        (ValueError(), "ValueError"),
        (KeyError("lost"), "internal error: KeyError: 'lost'; run it again with -v for more"),
        (RuntimeError("boom"), "internal error: RuntimeError: boom; run it again with -v for more"),
    ],
)
def test_one_line(error: Exception, line: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    complain(error)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    if line is not None:
        assert told == f"forebay: {line}\n"


def test_names_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    complain(errors.not_found("d/\x1b[2J\nforebay: all is well"), verbose=True)
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\nforebay: all is well" not in told
    assert r"d/\x1b[2J\nforebay: all is well: no such object" in told


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    complain(errors.not_found("d/\x1b"), as_json=True)
    complain(errors.ConfigError("bad"), as_json=True)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["error"]["path"] == "d/\x1b"
    assert first["error"]["kind"] == "NotFound"
    assert second == {"error": {"kind": "ConfigError", "message": "bad", "hint": ""}}


def test_what_is_of_our_own_output() -> None:
    assert is_of_output(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert is_of_output(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_of_output(OSError(errno.ENOSPC, "No space left on device", "/tier"))
    assert not is_of_output(errors.under_storage_error("s3://b/x", "I/O error"))
