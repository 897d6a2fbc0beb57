"""Which URIs and options of an attachment fsspec is given, and which are refused.

Attachments are kept on disk and listed, so nothing secret may be in them: options are those of a short list,
and a URI holds no password and no query. Credentials are given by reference: the environment, the machine's
role, the libraries' own files, or fsspec's configuration (``~/.config/fsspec``, ``FSSPEC_...``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from fsspec.registry import get_filesystem_class, known_implementations, registry

from forebay.errors import ConfigError
from forebay.ufs.base import check_options, refuse_embedded_credentials

_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 4

_COMMON: Final = ("timeout_s", "attempts")
_HTTP: Final = ("http", "https")
_WRAPPED: Final = "it reads through another storage; attach that one"
_LOCAL: Final = "attach a local folder as file:///folder"

# What fsspec knows and an under storage cannot be.
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "async_wrapper": _WRAPPED,
        "asynclocal": _LOCAL,
        "asyncwrapper": _WRAPPED,
        "blockcache": _WRAPPED,
        "cached": _WRAPPED,
        "dask": _WRAPPED,
        "data": "its URIs are the data themselves",
        "dir": _WRAPPED,
        "file": _LOCAL,
        "filecache": _WRAPPED,
        "forebay": "it is a cache itself",
        "generic": _WRAPPED,
        "libarchive": _WRAPPED,
        "local": _LOCAL,
        "reference": _WRAPPED,
        "s3": "it has a driver of its own",
        "s3a": "write s3://",
        "simplecache": _WRAPPED,
        "tar": _WRAPPED,
        "zip": _WRAPPED,
    }
)

_Keywords = Mapping[str, Any]


@dataclass(frozen=True)
class _Scheme:
    """What is particular about a scheme.

    options: ours -> fsspec's keyword. user: what stands before the ``@`` of a URI, "" if nothing may.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    anonymous: Callable[[bool], _Keywords] | None = None
    timeout: str = ""

    def known(self) -> tuple[str, ...]:
        """Name the options."""
        return (*self.options, *(("anonymous",) if self.anonymous else ()), *_COMMON)


_GS: Final = _Scheme(
    {"project": "project", "endpoint_url": "endpoint_url", "requester_pays": "requester_pays"},
    anonymous=lambda on: {"token": "anon"} if on else {},
)
_ABFS: Final = _Scheme(
    {"account_name": "account_name", "account_host": "account_host"},
    user="container",
    anonymous=lambda on: {"anon": on},
)
_SSH: Final = _Scheme(
    {"key_filename": "key_filename", "username": "username"}, user="user", timeout="timeout"
)

_SCHEMES: Final[Mapping[str, _Scheme]] = MappingProxyType(
    {
        "gs": _GS,
        "gcs": _GS,
        "abfs": _ABFS,
        "az": _ABFS,
        "sftp": _SSH,
        "ssh": _SSH,
        "ftp": _Scheme({"tls": "tls"}, timeout="timeout"),
        "hdfs": _Scheme({"user": "user", "kerb_ticket": "kerb_ticket"}, user="user"),
        "webhdfs": _Scheme({"user": "user", "kerberos": "kerberos", "use_https": "use_https"}, user="user"),
        "smb": _Scheme({"username": "username"}, user="user", timeout="timeout"),
        "github": _Scheme(user="owner:repository"),
    }
)


@dataclass(frozen=True)
class Target:
    """A URI and its options, checked: the class of the file system, what to make it with, and the root."""

    uri: str
    scheme: str
    file_system: Any
    keywords: _Keywords
    root: str
    timeout_s: float
    attempts: int


def is_known(scheme: str) -> bool:
    """Say whether fsspec has a name for this scheme, installed or not, or we have a reason to refuse it."""
    return scheme in known_implementations or scheme in registry or scheme in _REFUSED


def target_of(uri: str, options: Mapping[str, Any] | None = None) -> Target:
    """Check a URI and its options; imports the file system's library, connects to nothing.

    Raises: ConfigError (a scheme that is no storage or whose library is not installed, unknown or secret
    option, malformed URI); a value that may be secret is not shown.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme in _REFUSED:
        raise ConfigError(f"{scheme}://: {_REFUSED[scheme]}")
    particular = _SCHEMES.get(scheme, _Scheme())
    options = {name: value for name, value in (options or {}).items() if value is not None}
    check_options(scheme, options, particular.known())
    _check_uri(uri, scheme, particular)
    _check_values(scheme, options)
    timeout_s = _number(options.get("timeout_s", _TIMEOUT_S), "timeout_s")
    file_system = _class_of(scheme)
    keywords = dict(file_system._get_kwargs_from_urls(uri))
    if particular.timeout:
        keywords[particular.timeout] = timeout_s
    if particular.anonymous and "anonymous" in options:
        keywords |= particular.anonymous(bool(options["anonymous"]))
    keywords |= {keyword: options[name] for name, keyword in particular.options.items() if name in options}
    return Target(
        uri=uri.rstrip("/"),
        scheme=scheme,
        file_system=file_system,
        keywords=MappingProxyType(keywords),
        root=str(file_system._strip_protocol(uri)),
        timeout_s=timeout_s,
        attempts=int(_number(options.get("attempts", _ATTEMPTS), "attempts")),
    )


def _check_uri(uri: str, scheme: str, particular: _Scheme) -> None:
    rest = uri.partition("://")[2]
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if at and (not particular.user or (":" in user and ":" not in particular.user)):
        refuse_embedded_credentials(uri, f"{scheme} URI")
    if "?" in rest or "#" in rest:
        raise ConfigError(f"{scheme} URI: a URI to attach ends with its path, without query and fragment")
    if "\0" in rest:
        raise ConfigError(f"{scheme} URI: it holds a NUL")
    if scheme in _HTTP and not rest.partition("/")[0]:
        raise ConfigError(f"{uri}: no host; write {scheme}://host/folder")


def _check_values(scheme: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if not isinstance(value, str | bool | int | float):
            raise ConfigError(f"{name}: {scheme}:// takes text, a number, true or false here")
        if isinstance(value, str) and "://" in value:
            refuse_embedded_credentials(value, name)


def _class_of(scheme: str) -> Any:
    try:
        return get_filesystem_class(scheme)
    except ImportError as error:
        raise ConfigError(f"{scheme}://: what reads it is not installed: {error}") from error


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise ConfigError(f"{what}: {value!r} is no number of at least 1")
    return float(value)
