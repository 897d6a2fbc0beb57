"""The state machine's rules for writes: what was written through a dataset is what it shows from then on."""

from __future__ import annotations

import errno
import itertools
import time

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from forebay.errors import NotFound, UnderStorageError
from tests.property._cache_machine import CacheMachine, changes, lengths, names, paths, which_process
from tests.property._cache_model import Answer
from tests.property._cache_source import Fault

write_faults: st.SearchStrategy[list[Fault]] = st.lists(
    st.builds(
        Fault, st.sampled_from(["put", "delete"]), st.sampled_from(["error", "timeout", "forbidden", "lost"])
    )
    | st.builds(Fault, st.sampled_from(["put", "delete"]), st.just("change"), changes),
    max_size=1,
)


class WritingCacheMachine(CacheMachine):
    """The cache is written through as well, by all of its processes."""

    @rule(
        which=which_process,
        name=names,
        path=paths,
        length=lengths,
        how=st.sampled_from(["put", "write_file"]),
        planned=write_faults,
    )
    def put(self, which: int, name: str, path: str, length: int, how: str, planned: list[Fault]) -> None:
        seed = self.source.announce(length)
        answer = self.ask(which, how, f"{name}/{path}", seed, length, planned=planned)
        if answer.error is not None:
            self.judge_failure(name, path, answer)
            return
        (number,) = (n for n, version in enumerate(answer.versions(path)) if version.seed == seed)
        if how == "put":
            assert answer.value == (f"v{seed}", length)
        self.sights[name].change_own(path, number)

    @rule(which=which_process, name=names, path=paths, planned=write_faults)
    def delete(self, which: int, name: str, path: str, planned: list[Fault]) -> None:
        answer = self.ask(which, "delete", f"{name}/{path}", planned=planned)
        if answer.error is not None:
            self.judge_failure(name, path, answer)
            return
        versions = answer.versions(path)
        assert versions[-1].length is None
        self.sights[name].change_own(path, len(versions) - 1)

    def judge_failure(self, name: str, path: str, answer: Answer) -> None:
        """Hold the error to a cause; where it is left open what was done, the next reader is to ask."""
        sight, error = self.sights[name], answer.error
        self.forget_handles(name, path)
        if isinstance(error, UnderStorageError) and error.errno == errno.ENOTEMPTY:
            assert sight.may_be_directory(answer, path)
            return
        sight.judge_error(answer, [path])
        if not isinstance(error, PermissionError | NotFound):
            sight.see(path, len(answer.versions(path)) - 1)

    def forget_handles(self, name: str, path: str) -> None:
        for handle in itertools.chain.from_iterable(self.handles):
            if (handle.dataset, handle.path) == (name, path):
                handle.is_forgotten = True

    @precondition(lambda self: len(self.processes) > 1)
    @rule(name=names, path=paths, several=st.lists(lengths, min_size=3, max_size=3))
    def race_of_writers(self, name: str, path: str, several: list[int]) -> None:
        """All processes write one path at once: what the storage has last is what all of them show."""
        seeds = [self.source.announce(length) for length in several]
        began_ns = self.source.clock.boot_ns()
        for process, seed, length in zip(self.processes, seeds, several, strict=False):
            process.post("put", f"{name}/{path}", seed, length)
        answers = [self.collect_keeping_faults(which, began_ns) for which in range(len(self.processes))]
        for answer in answers:
            assert answer.error is None, answer.error
        self.sights[name].change_own(path, len(answers[-1].versions(path)) - 1)
        for which in range(len(self.processes)):
            self.read(which, name, path, 0, None, [])

    @rule(which=which_process, name=names, path=paths, length=lengths, after_us=st.integers(0, 4000))
    def kill_one_amid_a_write(self, which: int, name: str, path: str, length: int, after_us: int) -> None:
        """The old object or the new one: the storage's own history says which."""
        self.source.plan([])
        seed = self.source.announce(length)
        self.processes[self.index(which)].post("put", f"{name}/{path}", seed, length)
        time.sleep(after_us / 1e6)
        self.forget_handles(name, path)
        self.kill_one(which)
