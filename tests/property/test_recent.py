"""The table of recent look-ups against a dict: what it hands out is what a dict would, or nothing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from forebay.config import KIB, MIB
from forebay.meta import ChangeCounter, Entry, Recent

DATASETS = ("a", "a/b", "é")
# Other splits of the same text, texts of other widths.
NAMES = ("b", "b/c", "c", "ü", "\u4e2d", "\udcff", *(f"{number:04}" for number in range(20)))
VERSIONS = ("", "v", "5-7-9", "0123456789abcdef0123456789abcdef", "x" * 192, "x" * 193, "\udcff")
FILLING = 1_500

numbers = st.integers(0, (1 << 64) - 1)
entries = st.builds(
    Entry,
    st.sampled_from(NAMES),
    st.one_of(numbers, st.just(5)),
    st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.just(7)),
    st.sampled_from(VERSIONS),
    st.booleans(),
    numbers,
    numbers,
)
counters = st.integers(0, 1)


class RecentMachine(RuleBasedStateMachine):
    """A table with room for all, one that is always full, and what they are to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.roomy, self.tight = Recent(MIB), Recent(64 * KIB)
        memory = bytearray(16)
        self.counters = [ChangeCounter(memory, number) for number in range(2)]
        self.model: dict[str, tuple[Entry, bytes | None, int, int]] = {}

    @rule(dataset=st.sampled_from(DATASETS), entry=entries, number=counters, has_key=st.booleans())
    def put(self, dataset: str, entry: Entry, number: int, has_key: bool) -> None:
        counter, path = self.counters[number], f"{dataset}/{entry.path}"
        text = f"{number}\0{entry.path}\0{entry.version}\0tail"
        key = text.encode("utf-8", "surrogateescape") if has_key else None
        for table in (self.roomy, self.tight):
            table.put(path, entry, counter, counter.load(), key=key)
        self.model.pop(path, None)
        if len(entry.version) <= 192:
            self.model[path] = entry, key, number, counter.load()

    @rule(number=counters)
    def change(self, number: int) -> None:
        self.counters[number].store(self.counters[number].load() + 1)

    @rule(path=st.sampled_from([f"{dataset}/{name}" for dataset in DATASETS for name in NAMES]))
    def forget(self, path: str) -> None:
        self.model.pop(path, None)
        for table in (self.roomy, self.tight):
            table.forget(path)

    @rule(first=st.integers(0, 3))
    def fill(self, first: int) -> None:
        for number in range(first * FILLING, (first + 1) * FILLING):
            name = f"filling {number}"
            self.tight.put(f"a/{name}", Entry(name, number, 0, "", False, 1), self.counters[0], 0)

    @rule()
    def clear(self) -> None:
        self.model.clear()
        for table in (self.roomy, self.tight):
            table.clear()

    @invariant()
    def agree(self) -> None:
        for dataset in DATASETS:
            for name in NAMES:
                self.compare(f"{dataset}/{name}")
        assert len(self.roomy) == len(self.model)
        assert self.tight.bytes_used <= self.tight.bytes_max

    def compare(self, path: str) -> None:
        expected = self.model.get(path)
        if expected is not None and self.counters[expected[2]].load() != expected[3]:
            expected = None
        assert (self.roomy.get(path) is None) == (expected is None)
        for table in (self.roomy, self.tight):
            known = table.get(path)
            if known is not None:
                assert expected is not None
                assert tuple(known.entry) == tuple(expected[0])
                assert known.key == expected[1]


def test_the_table_answers_as_a_dict_does() -> None:
    run_state_machine_as_test(
        RecentMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
