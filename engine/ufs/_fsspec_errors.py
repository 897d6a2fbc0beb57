"""What a file system of fsspec raised, in our words, without the secrets that it may have put into its own.

fsspec has no exceptions for what goes wrong: each file system raises its libraries' own. They are told apart
by the built-in class where they are of one, else by the HTTP status that they carry, else by name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Final, NoReturn

from forebay import errors

_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0

_ABSENT_STATUS: Final = frozenset({404, 410})
_FORBIDDEN_STATUS: Final = frozenset({401, 403, 407})
_TIMEOUT_STATUS: Final = frozenset({408, 504})
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
# aiohttp's, requests' and paramiko's for a connection that failed or broke off; none needs to be installed.
_TRANSIENT_NAMES: Final = frozenset(
    {"ClientConnectionError", "ClientPayloadError", "ConnectionError", "SSHException"}
)
_CREDENTIAL_NAMES: Final = frozenset(
    {"AuthenticationException", "ClientAuthenticationError", "DefaultCredentialsError", "RefreshError"}
)

# name=value and "name": "value" with a name that a secret has, and the user in front of a URL's host.
_SECRET: Final = re.compile(
    r"(?P<name>[\w.-]*(?:sig|signature|token|secret|passw(?:or)?d|credential|api_?key|access_?key|account_?key"
    r"|authorization)[\w.-]*[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s&\"',;)}\]]+"
    r"|(?P<scheme>://)[^/@\s\"']+@",
    re.IGNORECASE,
)


def raise_translated(error: Exception, uri: str) -> NoReturn:
    """Raise what the error means for the object at uri; NotFound where the storage said so.

    The error stays the cause, so that a traceback shows it, unless that would show a secret.
    """
    cause = None if any(_SECRET.search(str(each)) for each in _chain(error)) else error
    raise _translate(error, uri) from cause


def is_transient(error: Exception) -> bool:
    """Say whether another attempt may go better."""
    if _is_named(error, _CREDENTIAL_NAMES):
        return False
    return (
        isinstance(error, TimeoutError | ConnectionError | EOFError)
        # Without an errno no system call failed: a library's "Socket is closed" and its like.
        or (type(error) is OSError and error.errno is None)
        or _status(error) in _TRANSIENT_STATUS
        or _is_named(error, _TRANSIENT_NAMES)
        or _is_timeout(error)
    )


def is_absent(error: Exception) -> bool:
    """Say whether the storage itself said that there is no such object."""
    return isinstance(error, FileNotFoundError | NotADirectoryError) or _status(error) in _ABSENT_STATUS


def delay_s(attempt: int) -> float:
    """Return how long to wait after this attempt, the first being 1.

    With full jitter: those who failed together do not come back together.
    """
    return random.uniform(0, min(_BACKOFF_MAX_S, _BACKOFF_S * 2**attempt))


def scrubbed(text: str) -> str:
    """Return the text with what looks like a secret replaced."""
    return _SECRET.sub(lambda match: (match["name"] or match["scheme"]) + "***", text)


def _translate(error: Exception, uri: str) -> OSError:
    status = _status(error)
    text = scrubbed(" ".join(str(error).split()))
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if is_absent(error):
        return errors.not_found(uri, words)
    is_credential = _is_named(error, _CREDENTIAL_NAMES)
    if isinstance(error, PermissionError) or status in _FORBIDDEN_STATUS or is_credential:
        return errors.forbidden(uri, words)
    if isinstance(error, TimeoutError) or status in _TIMEOUT_STATUS or _is_timeout(error):
        return errors.timed_out(uri, words)
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, IsADirectoryError):
        return errors.from_os_error(error, uri)
    return errors.under_storage_error(uri, words, code) if code else errors.under_storage_error(uri, words)


def _status(error: Exception) -> int:
    """Return the HTTP status that the error carries, 0 if it carries none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value <= 599:
                return int(value)
    return 0


def _is_named(error: Exception, names: frozenset[str]) -> bool:
    return any(base.__name__ in names for base in type(error).__mro__)


def _is_timeout(error: Exception) -> bool:
    return any("Timeout" in base.__name__ for base in type(error).__mro__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what a traceback shows with it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
