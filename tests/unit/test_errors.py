"""The exceptions: what each is a kind of, that they name path and cause, and that they cross processes."""

from __future__ import annotations

import errno
import pickle

import pytest

from forebay import errors

TREE: dict[str, type[Exception]] = {
    "NotFound": FileNotFoundError,
    "UnderStorageError": OSError,
    "Stale": OSError,
    "ConfigError": ValueError,
    "PinLimit": OSError,
    "JobNotFound": LookupError,
    "ScheduleNotFound": LookupError,
    "NotAttached": LookupError,
    "Closed": ValueError,
    "StoreBusy": TimeoutError,
}

MADE: list[OSError] = [
    errors.not_found("s3://b/a", "HTTP 404 NoSuchKey"),
    errors.forbidden("s3://b/a", "HTTP 403 AccessDenied"),
    errors.timed_out("s3://b/a", "no answer for 30 s"),
    errors.stale("s3://b/a", "v1", "v2"),
    errors.under_storage_error("s3://b/a", "HTTP 503 SlowDown"),
]


@pytest.mark.parametrize(("name", "kind"), TREE.items())
def test_each_is_a_kind_of_a_built_in(name: str, kind: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), kind)


def test_nothing_but_not_found_is_a_missing_file() -> None:
    assert [name for name in TREE if issubclass(getattr(errors, name), FileNotFoundError)] == ["NotFound"]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_path_and_cause_are_named(error: OSError) -> None:
    assert error.filename == "s3://b/a"
    assert error.strerror
    assert error.strerror in str(error)
    assert "s3://b/a" in str(error)


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_they_cross_processes(error: OSError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.errno, again.filename) == (str(error), error.errno, error.filename)


def test_stale_names_both_versions() -> None:
    error = errors.stale("s3://b/a", "v1", "v2")
    assert error.errno == errno.ESTALE
    assert "'v1'" in str(error)
    assert "'v2'" in str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, errors.NotFound),
        (errno.ENOTDIR, errors.NotFound),
        (errno.EACCES, PermissionError),
        (errno.EPERM, PermissionError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EISDIR, IsADirectoryError),
        (errno.EIO, errors.UnderStorageError),
        (errno.ENOMEM, errors.UnderStorageError),
        (None, errors.UnderStorageError),
    ],
)
def test_operating_system_errors_are_translated(code: int | None, kind: type[OSError]) -> None:
    error = OSError(code, "cause", "inner") if code else OSError("no number")
    translated = errors.from_os_error(error, "file:///a")
    assert type(translated) is kind
    assert translated.filename == "file:///a"
    assert translated.errno
