"""What a cache may answer: judged by the history of the under storage and what was seen before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from forebay.clock import NS_PER_S
from forebay.errors import NotFound, Stale, UnderStorageError
from tests.property._cache_process import Digest, digest_of
from tests.property._cache_source import State, Version

# An object and a directory of one name among them.
PATHS: Final = ["a", "b", "sub/b", "sub/deep/c", "x", "x/y"]
DIRECTORIES: Final = ["", "sub", "sub/deep", "x"]

_NEVER: Final = Version(0, None, 0)
_KINDS_OF: Final[dict[str, type[OSError]]] = {
    "error": UnderStorageError,
    "short": UnderStorageError,
    "timeout": TimeoutError,
    "forbidden": PermissionError,
    "stale": Stale,
    "lost": TimeoutError,
}


@dataclass(frozen=True)
class Answer:
    """What a call came to, when it began, and the under storage's state when it had ended."""

    value: Any
    error: Exception | None
    began_ns: int
    state: State

    @property
    def fired(self) -> set[str]:
        """The kinds of faults that struck."""
        return {fault.kind for fault in self.state.fired}

    def versions(self, path: str) -> list[Version]:
        """All versions of a path, the first of which is that there is nothing."""
        return [_NEVER, *self.state.history.get(path, [])]

    def present_versions(self) -> dict[str, int]:
        """Return the numbers of the versions that were there when the call began."""
        return {
            path: max(
                number for number, each in enumerate(self.versions(path)) if each.since_ns <= self.began_ns
            )
            for path in self.state.history
        }

    def has_changed(self, paths: Iterable[str]) -> bool:
        """Say whether one of them changed since the call began."""
        return any(self.versions(path)[-1].since_ns >= self.began_ns for path in paths)


@dataclass
class Handle:
    """An open file: the version that it keeps to, and whether its entry was dropped since."""

    dataset: str
    path: str
    version: Version
    number: int
    is_forgotten: bool = False


@dataclass
class Sight:
    """One dataset's promises, and what has been seen of it.

    Nothing that is shown is older than max_age, and nothing goes back: once a version was seen, or asked
    for by a sync, no earlier one is.
    """

    name: str
    max_age: float | None
    negative_ttl: float = 0.0
    floors: dict[str, int] = field(default_factory=dict)
    # Of a directory's listing, which does not follow what is seen below it: path -> version, by directory.
    listed: dict[str, dict[str, int]] = field(default_factory=dict)

    def possible(
        self, answer: Answer, path: str, age_s: float | None, floors: dict[str, int] | None = None
    ) -> list[tuple[int, Version]]:
        """Return the versions, by number, that were there within age_s before the call or during it."""
        versions = answer.versions(path)
        found = []
        for number in range((self.floors if floors is None else floors).get(path, 0), len(versions)):
            is_last = number + 1 == len(versions)
            oldest_ns = 0 if age_s is None else answer.began_ns - int(age_s * NS_PER_S)
            if is_last or versions[number + 1].since_ns >= oldest_ns:
                found.append((number, versions[number]))
        return found

    def may_be_absent(self, answer: Answer, path: str, age_s: float | None) -> bool:
        """Say whether there may have been no such object."""
        return any(version.length is None for _, version in self.possible(answer, path, age_s))

    def may_be_directory(self, answer: Answer, path: str) -> bool:
        """Say whether there may have been something below the path."""
        below = [each for each in answer.state.history if not path or each.startswith(f"{path}/")]
        return any(
            version.length is not None
            for each in below
            for _, version in self.possible(answer, each, self.max_age)
        )

    def see(self, path: str, number: int) -> None:
        """Note that a version was seen."""
        self.floors[path] = max(self.floors.get(path, 0), number)

    def see_side_by_side(self, seen: Iterable[tuple[str, int]]) -> None:
        """Note what was seen by reads that ran side by side: of each path the earliest version.

        Nobody can tell in which order the storage answered two that ask at once. The cache keeps the answer
        that was asked for last, and that may be the older one:

        1. P notes the time and is about to ask; Q notes a later time, asks, and is told of version 2.
        2. The object changes. P asks, is told of version 3, and returns its bytes.
        3. Version 2 is what is known: Q's time is the later one. It is as young as max_age wants it.

        Every answer that may be the one kept is the last that some read got, so one of them returned it. With
        that floor of an empty version 2, which needs no request that would tell that it is no more, may
        follow the bytes of version 3.
        """
        lowest: dict[str, int] = {}
        for path, number in seen:
            lowest[path] = min(lowest.get(path, number), number)
        for each in lowest.items():
            self.see(*each)

    def ask_all(self, answer: Answer, path: str) -> None:
        """Note that the under storage was asked for everything at or below the path."""
        now = answer.present_versions()
        for each, number in now.items():
            if _is_at_or_below(each, path):
                self.see(each, number)
        for directory in DIRECTORIES:
            if _is_at_or_below(directory, path):
                self.listed[directory] = now

    def forget_all(self, answer: Answer, path: str) -> None:
        """Note that all that was known at or below the path is to be asked for anew."""
        self.ask_all(answer, path)
        self.listed[path.rpartition("/")[0]] = answer.present_versions()

    def change_own(self, path: str, number: int) -> None:
        """Note that a version was written through this dataset: it is known, and so are the directories."""
        self.see(path, number)
        directory = path
        while directory:
            directory = directory.rpartition("/")[0]
            self.listed[directory] = {**self.listed.get(directory, {}), path: number}

    def find_present(self, answer: Answer, path: str) -> None:
        """Note that every object at or below the path was found by a walk."""
        for each, number in answer.present_versions().items():
            if _is_at_or_below(each, path) and answer.versions(each)[number].length is not None:
                self.see(each, number)

    def judge_bytes(
        self, answer: Answer, path: str, found: Digest, offset: int, length: int | None
    ) -> tuple[str, int]:
        """Hold bytes to be those of one version that may be shown; return what was seen, for ``see``."""
        end = None if length is None else offset + length
        possible = self.possible(answer, path, self.max_age)
        for number, version in possible:
            if version.length is not None and digest_of(version.data()[offset:end]) == found:
                return path, number
        every = enumerate(answer.versions(path))
        are_of = [n for n, v in every if v.length is not None and digest_of(v.data()[offset:end]) == found]
        of_what = f"versions {are_of}" if are_of else "no version"
        raise AssertionError(
            f"{self.name}/{path}[{offset}:{end}]: {found[0]} bytes of {of_what}; possible are {possible}"
        )

    def judge_stat(self, answer: Answer, path: str, found: tuple[str, int, bool]) -> tuple[str, int]:
        """Hold a description to one version that may be shown; return what was seen."""
        etag, size, is_dir = found
        possible = self.possible(answer, path, self.max_age)
        if is_dir:
            assert not path or self.may_be_directory(answer, path), f"{path} is no directory"
            assert self.may_be_absent(answer, path, self.max_age), f"{path} is an object: {possible}"
            return path, 0
        for number, version in possible:
            if (version.etag, version.length) == (etag, size):
                return path, number
        raise AssertionError(f"{self.name}/{path}: {found} is none of {possible}")

    def judge_names(self, answer: Answer, directory: str, found: Sequence[str]) -> None:
        """Hold a listing to what may and what must be in a directory."""
        prefix = f"{directory}/" if directory else ""
        floors = self.listed.get(directory, {})
        may: set[str] = set()
        must: set[str] = set()
        for path in answer.state.history:
            if path.startswith(prefix):
                name = path[len(prefix) :].partition("/")[0]
                lengths = [version.length for _, version in self.possible(answer, path, self.max_age, floors)]
                if any(length is not None for length in lengths):
                    may.add(name)
                if None not in lengths:
                    must.add(name)
        assert len(set(found)) == len(found), found
        assert must <= set(found) <= may, f"{self.name}/{directory}: {found}; must {must}, may {may}"

    def judge_error(self, answer: Answer, paths: Sequence[str], *, keeps_version: bool = False) -> None:
        """Hold an exception to be one that something has caused.

        keeps_version: the call begins with the version that is known, and raises Stale if that is no more.
        """
        error = answer.error
        if isinstance(error, Stale):
            caused = answer.has_changed(paths) or "stale" in answer.fired
            if keeps_version:
                caused = caused or any(len(self.possible(answer, path, self.max_age)) > 1 for path in paths)
        elif isinstance(error, NotFound):
            caused = any(self.may_be_absent(answer, path, self.negative_ttl) for path in paths)
        elif isinstance(error, IsADirectoryError | NotADirectoryError):
            is_object_wanted = isinstance(error, IsADirectoryError)
            caused = any(
                self.may_be_absent(answer, path, self.max_age)
                if is_object_wanted
                else len(answer.versions(path)) > 1
                for path in paths
            )
        else:
            caused = any(isinstance(error, _KINDS_OF.get(kind, ())) for kind in answer.fired)
        assert caused, f"nothing caused {error!r} ({answer.fired or 'no faults'})"

    def judge_file(self, answer: Answer, handle: Handle, offset: int, length: int) -> None:
        """Hold a read of an open file to its own version, or to Stale if there is another."""
        if answer.error is None:
            assert answer.value == digest_of(handle.version.data()[offset : offset + length]), handle
        elif isinstance(answer.error, Stale):
            is_last = handle.number + 1 == len(answer.versions(handle.path))
            assert not is_last or handle.is_forgotten or "stale" in answer.fired, handle
        else:
            self.judge_error(answer, [handle.path])


def _is_at_or_below(path: str, root: str) -> bool:
    return root in ("", path) or path.startswith(f"{root}/")
