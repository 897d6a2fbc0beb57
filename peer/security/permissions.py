"""Whether a caller may do what he asks for: the one place where calls and frames are held to the table."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from forebay.peer.paths import encoded
from forebay.peer.security.caller import Caller
from forebay.peer.security.refusal import RefusalLog, Refused
from forebay.peer.security.table import RULES, Rule, Where
from forebay.peer.security.tokens import Verifier

_BAD_PART: Final = re.compile(rb"(?:^|/)\.{0,2}(?:/|\Z)")
_SUSPECT: Final = (b".", b"/")
_DATASET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:@[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
_PATH_BYTES_MAX: Final = 1 << 16


class Permissions:
    """Holds callers to the table, and logs whom it refuses and why. Threads: any.

    Without a verifier there are no tokens, and whoever can connect may do everything in the table: for
    loopback, and for groups where TLS lets in only who has a certificate. A path that is not plain
    (``..``, an empty part, NUL) is refused either way: it could lead out of what a token is for.
    """

    def __init__(self, verifier: Verifier | None = None) -> None:
        """Hold tokens against the verifier's keys."""
        self._verifier = verifier
        self._log = RefusalLog()

    @property
    def refused_count(self) -> int:
        """How many calls, frames and tokens were refused."""
        return self._log.count

    def authenticate(self, what: str, token: str | None, address: str) -> Caller:
        """Return who asks, from the token and the IP address that it came from.

        what is the name of a call or frame, as in the table. The caller stands for one call or connection;
        check looks at the token's end again. Raises: Refused.
        """
        if self._verifier is None:
            return Caller(address)
        try:
            rule = RULES.get(what)
            if rule is not None and rule.where is Where.PUBLIC:
                return Caller(address)
            return Caller(address, self._verifier.authenticate(token, address))
        except Refused as refused:
            self._log.tell(what, address, refused)
            raise

    def check(self, what: str, caller: Caller, dataset: str | None = None, path: bytes | str = b"") -> None:
        """Return if the caller may do this to the path of the dataset, both None for what names no path.

        Raises: Refused.
        """
        try:
            rule = _rule(what)
            self._hold(rule, caller)
            if rule.where is Where.PATH:
                raw = encoded(path) if isinstance(path, str) else path
                _check_target(rule, caller, dataset, raw)
        except Refused as refused:
            self._log.tell(what, str(caller), refused)
            raise

    def check_request(self, what: str, caller: Caller, request: Any = None) -> None:
        """Return if the caller may have this request answered; None where a stream of them is to come.

        Raises: Refused.
        """
        try:
            rule = _rule(what)
            self._hold(rule, caller)
            needed = frozenset() if rule.verbs_of is None else rule.verbs_of(request)
            if needed and caller.claims is not None and not caller.claims.may(needed):
                raise Refused(f"the token has none of the verbs {_words(needed)}")
            if rule.where is Where.PATH and request is not None:
                if rule.targets is None:
                    raise Refused("its row says not where its paths are")
                for dataset, path in rule.targets(request):
                    _check_target(rule, caller, dataset, path)
        except Refused as refused:
            self._log.tell(what, str(caller), refused)
            raise

    def is_of_paths(self, what: str) -> bool:
        """Say whether requests name paths, so that each of a stream of them is to be held to the table."""
        rule = RULES.get(what)
        return rule is not None and rule.where is Where.PATH

    def sees(self, caller: Caller, dataset: str) -> bool:
        """Say whether the caller may know that there is this dataset: his token is for some of it."""
        claims = caller.claims
        if claims is None or claims.covers_group():
            return True
        name = dataset.partition("@")[0]
        return any(prefix.partition("/")[0].partition("@")[0] == name for prefix in claims.datasets)

    def _hold(self, rule: Rule, caller: Caller) -> None:
        """Hold what needs no path: the token's times, its verbs, and whether it is for the whole group."""
        claims = caller.claims
        if self._verifier is None or rule.where is Where.PUBLIC:
            return
        if claims is None:
            raise Refused("no token", is_unauthenticated=True)
        self._verifier.hold(claims)
        if rule.verbs and not claims.may(rule.verbs):
            raise Refused(f"the token has none of the verbs {_words(rule.verbs)}")
        if rule.where is Where.GROUP and not claims.covers_group():
            raise Refused("the token is not for all datasets")


def _rule(what: str) -> Rule:
    rule = RULES.get(what)
    if rule is None:
        raise Refused("there is no row for it in the table of permissions")
    return rule


def _check_target(rule: Rule, caller: Caller, dataset: str | None, path: bytes) -> None:
    """Hold one path to what is plain and to the token's prefixes."""
    if dataset is None or not _is_dataset(dataset):
        raise Refused(f"{dataset!r} is no name of a dataset")
    bare = path.removesuffix(b"/")
    if not _is_plain(bare) or (path and not bare):
        raise Refused(f"{path[:200]!r} is no plain path")
    if caller.claims is not None and not caller.claims.covers(dataset, bare):
        raise Refused(f"{dataset}/{bare[:200]!r} is not in the token's datasets")


@lru_cache(maxsize=1024)
def _is_dataset(name: str) -> bool:
    return _DATASET.fullmatch(name) is not None


def _is_plain(path: bytes) -> bool:
    """Say whether the path is empty, or parts that are neither empty nor ``.`` nor ``..``."""
    if b"\0" in path or len(path) > _PATH_BYTES_MAX:
        return False
    # The expression is slow, and most paths have nothing for it to find.
    is_suspect = path[:1] in _SUSPECT or path[-1:] == b"/" or b"//" in path or b"/." in path
    return not (is_suspect and _BAD_PART.search(path))


def _words(verbs: frozenset[Any]) -> str:
    return ", ".join(sorted(verbs))
